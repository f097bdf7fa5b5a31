"""The packaged texts serve their two purposes."""

from __future__ import annotations

from calibration.artifacts.digest import texts_digest
from calibration.quantization.standard_recipes import RECIPES
from calibration.texts.packaged import calibration_texts, heldout_texts


def test_there_are_as_many_samples_as_the_recipes_ask_for() -> None:
    assert len(calibration_texts()) >= max(recipe.mix.packaged for recipe in RECIPES.values() if recipe.mix)


def test_no_line_of_the_held_out_text_is_in_the_calibration_samples() -> None:
    def sentences(texts: list[str]) -> set[str]:
        return {line.strip() for text in texts for line in text.splitlines() if len(line.strip()) > 50}

    assert not sentences(calibration_texts()) & sentences(heldout_texts())


def test_every_text_is_long_enough_to_say_something() -> None:
    assert all(len(text) > 300 for text in [*calibration_texts(), *heldout_texts()])


def test_the_digest_tells_texts_and_their_order_apart() -> None:
    digests = {texts_digest(texts) for texts in (["a", "b"], ["b", "a"], ["ab"], [])}

    assert len(digests) == 4
    assert texts_digest(iter(["a", "b"])) in digests
