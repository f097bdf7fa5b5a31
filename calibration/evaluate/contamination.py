"""Refuse to measure a checkpoint on texts that it was calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.artifacts.digest import texts_digest
from calibration.artifacts.manifest import Manifest, read_manifest
from calibration.errors import InputError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.heldout import HeldoutText
from calibration.quantization.recipe import CalibrationMix
from calibration.quantization.texts.calibration_texts import first_texts, spread_evenly


def refuse_calibrated(texts: Sequence[HeldoutText], candidates: Sequence[Candidate]) -> None:
    """Raise InputError if one of the checkpoints was calibrated on the first of these texts."""
    plain_texts = [text.text for text in texts]
    for candidate in candidates:
        manifest = read_manifest(candidate.path)
        if manifest is not None and _is_calibrated_on(manifest, plain_texts):
            raise InputError(f"--heldout: checkpoint {candidate.name} was calibrated on these texts: take others")


def _is_calibrated_on(manifest: Manifest, texts: list[str]) -> bool:
    """Tell whether the digest in the manifest is that of these texts, chosen and cut as `quantize` does.

    Texts of a sampled set are taken in their order, those of a file in another.
    """
    try:
        mix = CalibrationMix(**manifest.fingerprint["recipe"]["mix"])
        digests = {texts_digest(first_texts(mix, order)) for order in (texts, spread_evenly(texts))}
        return manifest.fingerprint["calibrated_on"] in digests
    except (KeyError, TypeError):  # a recipe without calibration texts, or a manifest of another program
        return False
