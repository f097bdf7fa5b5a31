"""The packaged texts serve their two purposes."""

from __future__ import annotations

import pytest

from calibration.artifacts.digest import texts_digest
from calibration.quantization.standard_recipes import RECIPES
from calibration.sample.kind import kind_and_language
from calibration.sample.near import NearIndex, folded, signature
from calibration.texts.packaged import (
    KINDS,
    TEXTS,
    calibration_texts,
    heldout_texts,
    packaged_calibration,
    packaged_heldout,
)

LANGUAGES = {"german": "de", "french": "fr", "spanish": "es", "chinese": "zh"}


def test_there_are_as_many_samples_as_the_recipes_ask_for() -> None:
    assert len(calibration_texts()) >= max(recipe.mix.packaged for recipe in RECIPES.values() if recipe.mix)


def test_no_held_out_text_is_near_a_calibration_text() -> None:
    index = NearIndex()
    for number, text in enumerate(calibration_texts()):
        index.add(number, signature(folded(text)))

    assert [text for text in heldout_texts() if index.near(signature(folded(text)))] == []


def test_no_line_of_the_held_out_text_is_in_the_calibration_samples() -> None:
    def sentences(texts: list[str]) -> set[str]:
        return {line.strip() for text in texts for line in text.splitlines() if len(line.strip()) > 50}

    assert not sentences(calibration_texts()) & sentences(heldout_texts())


def test_every_text_is_long_enough_to_say_something() -> None:
    for kind, text in [*packaged_calibration(), *packaged_heldout()]:
        assert len(text) > (80 if kind in ("chinese", "chat") else 250), text


@pytest.mark.parametrize("half", [packaged_calibration(), packaged_heldout()], ids=["calibration", "heldout"])
def test_both_halves_have_enough_of_every_kind(half: list[tuple[str, str]]) -> None:
    assert [kind for kind, _ in half[: len(KINDS)]] == list(KINDS)
    for kind in KINDS:
        texts = [text for of_kind, text in half if of_kind == kind]
        assert len(texts) >= 3
        assert sum(map(len, texts)) > 1500, kind


@pytest.mark.parametrize(("kind", "language"), LANGUAGES.items())
def test_texts_of_a_language_are_in_that_language(kind: str, language: str) -> None:
    texts = [text for of_kind, text in [*packaged_calibration(), *packaged_heldout()] if of_kind == kind]

    languages = [kind_and_language(text)[1] for text in texts]
    assert languages.count(language) >= 0.9 * len(texts), languages


def test_every_file_has_its_source_and_licence_written_down() -> None:
    sources = (TEXTS / "README.md").read_text(encoding="utf-8")
    table = [line for line in sources.splitlines() if line.startswith("| ") and ("Apache" in line or "MIT" in line)]

    assert {path.stem for path in TEXTS.glob("*/*.txt")} == set(KINDS)
    assert all(any(kind in line.split("|")[1] for line in table) for kind in KINDS)


def test_the_digest_tells_texts_and_their_order_apart() -> None:
    digests = {texts_digest(texts) for texts in (["a", "b"], ["b", "a"], ["ab"], [])}

    assert len(digests) == 4
    assert texts_digest(iter(["a", "b"])) in digests
