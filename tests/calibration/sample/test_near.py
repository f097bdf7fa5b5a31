"""Signatures tell how much two texts overlap, and the index finds those that do."""

from __future__ import annotations

import random

import pytest

from calibration.sample.near import NEAR, NearIndex, folded, overlap, signature
from tests.calibration.sample.conftest import WORDS, prompts


def exact(one: bytes, other: bytes) -> float:
    grams, others = ({text[at : at + 8] for at in range(len(text) - 7)} for text in (one, other))
    return len(grams & others) / len(grams | others)


def changed(words: list[str], times: int, chance: random.Random) -> bytes:
    words = list(words)
    for _ in range(times):
        words[chance.randrange(len(words))] = chance.choice(WORDS)
    return " ".join(words).encode()


def test_the_estimate_is_close_to_the_true_overlap() -> None:
    chance = random.Random(3)
    errors = []
    for times in range(60):
        words = chance.choices(WORDS, k=80)
        one, other = " ".join(words).encode(), changed(words, times, chance)
        errors.append(overlap(signature(one), signature(other)) - exact(one, other))

    # 64 hash functions: a standard error of at most 0.0625.
    assert abs(sum(errors) / len(errors)) < 0.03
    assert max(map(abs, errors)) < 0.22


@pytest.mark.parametrize("text", ["", "a", "seven77", "eight888", "nine99999", "x" * 15, "x" * 5000])
def test_every_text_is_near_itself(text: str) -> None:
    index = NearIndex()

    index.add(7, signature(folded(text)))

    assert index.near(signature(folded(text))) == [7]


def test_a_text_with_a_word_changed_is_found_and_others_are_not() -> None:
    index, chance = NearIndex(), random.Random(5)
    texts = [chance.choices(WORDS, k=40) for _ in range(300)]
    for number, words in enumerate(texts):
        index.add(number, signature(" ".join(words).encode()))

    variants = [changed(words, 1, chance) for words in texts]
    found = [index.near(signature(variant)) for variant in variants]

    near = [number for number, words in enumerate(texts) if exact(" ".join(words).encode(), variants[number]) > 0.8]
    assert len(near) > 250
    assert [number for number in near if found[number] != [number]] == []
    assert [index.near(signature(text.encode())) for text in prompts(100)] == [[]] * 100


def test_a_text_that_was_removed_is_not_found() -> None:
    index, its = NearIndex(), signature(b"the harbour was quiet before sunrise")
    index.add(1, its)

    index.remove(1)

    assert index.near(its) == []
    assert NEAR < 1


def test_folding_forgets_case_white_space_and_numbers() -> None:
    assert folded("Ticket  12\n please") == folded("ticket 4711 PLEASE")
    assert folded("ticket a") != folded("ticket b")
