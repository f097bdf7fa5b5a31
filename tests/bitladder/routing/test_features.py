"""bitladder/routing/features.py: what each feature is, and that only what is asked for is computed, once."""

from __future__ import annotations

import math
import re
import time
from collections import Counter

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.routing import prompt_parts as module
from bitladder.routing.features import FEATURES, score_prompt
from bitladder.routing.prompt_parts import HEAD_BYTES, Prompt, byte_entropy

CODE = "def area(r):\n    return 3.14 * r ** 2\n"
# Those of which a linear model predicts what a low precision loses as well as of all.
SIX = ("punctuation", "repeated_4grams", "chat", "digits", "non_ascii", "tokens")


def features_of(text: str, endpoint: Endpoint = Endpoint.COMPLETIONS) -> dict[str, float]:
    return score_prompt(text.encode(), endpoint, FEATURES).values


@pytest.mark.parametrize(
    ("text", "bits"),
    [(b"", 0.0), (b"aaaa", 0.0), (b"abab", 1.0), (bytes(range(256)), 8.0), ("é".encode(), 1.0)],
)
def test_known_texts_have_known_entropy(text: bytes, bits: float) -> None:
    assert byte_entropy(text) == pytest.approx(bits)


@given(st.text())
def test_entropy_divides_by_bytes_also_for_text_that_is_not_ascii(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")

    shares = [count / len(data) for count in Counter(data).values()]

    assert byte_entropy(data) == pytest.approx(-sum(share * math.log2(share) for share in shares), abs=1e-9)


def test_a_text_longer_than_the_table_is_counted_like_a_short_one() -> None:
    assert byte_entropy(b"abab" * 50_000) == pytest.approx(1.0)
    assert byte_entropy(bytes(range(256)) * 300) == pytest.approx(8.0)


def test_a_score_has_a_field_for_every_feature_and_no_other() -> None:
    assert set(Score.__struct_fields__) == set(FEATURES)
    assert {name: feature.name for name, feature in FEATURES.items()} == {name: name for name in FEATURES}


def test_each_feature_measures_what_it_says() -> None:
    text = "One two two. Zwölf [12]!\n\nWhy?"
    size = len(text.encode())

    features = features_of(text, Endpoint.CHAT)

    shares = {"digits": 2, "punctuation": 5, "brackets": 2, "uppercase": 3, "spaces": 4, "newlines": 2, "non_ascii": 2}
    assert {name: features[name] for name in shares} == {name: round(count / size, 4) for name, count in shares.items()}
    assert (features["bytes"], features["characters"], features["words"]) == (size, size - 1, 6)
    assert features["bytes_per_character"] == round(size / (size - 1), 4)
    assert features["unique_words"] == round(5 / 6, 4)
    assert features["word_length"] == round((3 + 3 + 3 + 5 + 2 + 3) / 6, 4)
    assert features["line_length"] == round(size / 3, 4)
    assert (features["repeated_lines"], features["question"], features["chat"]) == (0, 1, 1)
    assert features["entropy"] == round(byte_entropy(text.encode()), 4)


def test_code_questions_and_repeats_are_told_from_their_opposites() -> None:
    again = "again and again " * 50

    assert features_of(CODE)["code_likeness"] == 1
    assert features_of("Code is a way to say how.\nIt is not prose.")["code_likeness"] == 0
    assert features_of(again)["zlib_ratio"] < 0.1
    assert features_of(again)["repeated_4grams"] > 0.97
    assert features_of("abcdefghijklm")["repeated_4grams"] == 0
    assert features_of("a\nb\na\na")["repeated_lines"] == 0.5
    assert features_of("\uff1f \n")["question"] == 1
    assert features_of("Why? Because.")["question"] == features_of("Why?")["chat"] == 0


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_runs_of_four_bytes_are_counted_like_a_set_counts_them(text: str) -> None:
    data = text.encode()
    runs = [data[start : start + 4] for start in range(len(data) - 3)]

    expected = 1 - len(set(runs)) / len(runs) if len(runs) > 1 else 0

    assert features_of(text)["repeated_4grams"] == pytest.approx(expected, abs=1e-4)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@example("\u0391\u03a3'\u0391 \u0130 don\u2019t x\u3000y\x85z_1")
def test_words_are_those_of_a_regular_expression(text: str) -> None:
    words = ["".join(map(str.lower, word)) for word in re.findall(r"\w+", text)]

    assert Prompt(text.encode(), Endpoint.CHAT).words == (len(words), len(set(words)), len("".join(words)))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("The sky is blue because air scatters short waves of light more than long ones.", 15), ("1234567890" * 3, 30)],
)
def test_tokens_are_estimated_within_a_third(text: str, tokens: int) -> None:
    assert features_of(text)["tokens"] == pytest.approx(tokens, rel=1 / 3)


@pytest.mark.parametrize("text", ["", " ", "\x00", "😀", "\n", "abc", "a" * 100_000, "ö" * 20_000])
def test_any_text_has_finite_features(text: str) -> None:
    features = features_of(text)

    assert set(features) == set(FEATURES)
    assert all(math.isfinite(value) for value in features.values())


def test_only_what_is_asked_for_is_computed_and_each_part_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    for name in ("byte_counts", "code_lines"):
        original = getattr(module, name)

        def counted(text: object, name: str = name, original: object = original) -> object:
            calls[name] += 1
            return original(text)  # type: ignore[operator]

        monkeypatch.setattr(module, name, counted)

    assert score_prompt(b"Why?", Endpoint.CHAT, ("chat", "question")) == Score(chat=1, question=1)
    assert calls == {}
    score_prompt(b"Why?", Endpoint.CHAT, SIX)
    assert calls == {"byte_counts": 1}
    score_prompt(b"Why?", Endpoint.CHAT, FEATURES)
    assert calls == {"byte_counts": 2, "code_lines": 1}


def test_lengths_and_shares_of_a_long_prompt_are_of_all_of_it() -> None:
    short, long = features_of("one TWO 3. " * 500), features_of("one TWO 3. " * 50_000)

    assert len(b"one TWO 3. " * 50_000) > 10 * HEAD_BYTES
    assert long["characters"] == 100 * short["characters"]
    assert long["words"] == pytest.approx(100 * short["words"], rel=1e-3)
    assert long["tokens"] == pytest.approx(100 * short["tokens"], rel=1e-3)
    assert [long[name] for name in ("digits", "uppercase", "spaces", "entropy")] == pytest.approx(
        [short[name] for name in ("digits", "uppercase", "spaces", "entropy")], abs=1e-3
    )


@pytest.mark.parametrize("unit", ["word ", "x = f(1);\n", "ö?! ", "(", "a.", "if x", "\n"])
def test_two_megabytes_of_anything_take_a_bounded_time(unit: str) -> None:
    """They take 4 ms (docs/benchmarks.md); what grows faster than the text would take seconds here."""
    data = (unit * (2**21 // len(unit.encode()))).encode()
    times = []
    for _ in range(3):
        start = time.process_time()
        score_prompt(data, Endpoint.CHAT, FEATURES)
        times.append(time.process_time() - start)

    assert min(times) < 0.1


def test_a_feature_that_was_not_computed_cannot_be_read() -> None:
    score = score_prompt(b"Why?", Endpoint.CHAT, ("entropy",))

    assert score["entropy"] == score.entropy == 2.0
    with pytest.raises(KeyError, match="digits"):
        score["digits"]
    with pytest.raises(KeyError, match="values"):
        score["values"]
    with pytest.raises(KeyError):
        score_prompt(b"Why?", Endpoint.CHAT, ("charm",))
    assert msgspec.json.encode(score) == b'{"entropy":2.0}'
