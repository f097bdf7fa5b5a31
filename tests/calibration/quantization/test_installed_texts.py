"""Texts for whoever has no samples: as many as are asked for, the same ones every time, none that is measured on."""

from __future__ import annotations

from calibration.quantization.recipe import CalibrationMix
from calibration.quantization.texts.installed_texts import texts_for
from calibration.texts.packaged import calibration_texts, heldout_texts


def test_a_mix_has_as_many_texts_of_each_kind_as_it_says_and_none_twice() -> None:
    texts = texts_for(CalibrationMix(code=10, prose=6, packaged=4, tokens=100))

    assert len(set(texts)) == 20
    assert len(set(texts) & set(calibration_texts())) == 4
    assert all(len(text) <= 800 for text in set(texts) - set(calibration_texts()))


def test_the_texts_are_the_same_every_time_and_mixed() -> None:
    mix = CalibrationMix(code=5, packaged=5, tokens=100)

    assert texts_for(mix) == texts_for(mix)
    assert texts_for(mix)[:5] != texts_for(CalibrationMix(code=5, tokens=100))


def test_code_is_code_and_prose_is_prose() -> None:
    code, prose = (
        "".join(texts_for(CalibrationMix(code=20, tokens=200))),
        "".join(texts_for(CalibrationMix(prose=10, tokens=200))),
    )

    assert code.count("self") > 20 > 2 * prose.count("self")
    assert prose.count("](") > 10 > 2 * code.count("](")


def test_no_packaged_text_that_is_measured_on_is_calibrated_on() -> None:
    texts = "\n".join(texts_for(CalibrationMix(code=24, prose=24, packaged=24, tokens=256)))

    assert [text for text in heldout_texts() if text[:80] in texts] == []
