"""Held-out text of one's own, and what would make it no held-out text: a checkpoint was calibrated on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calibration.artifacts.manifest import Manifest, read_manifest
from calibration.errors import InputError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.texts import Text, read_texts
from calibration.quantization.recipe import Mix
from calibration.quantization.recipes import RECIPES
from calibration.quantization.samples import chosen, spread
from calibration.sample.sets import load, set_of
from calibration.sample.strata import HELDOUT
from calibration.texts.packaged import digest


def read_heldout(path: Path) -> list[Text]:
    """Read held-out text: the held-out half of a sampled set, which is checked as a whole, or any file of texts.

    Raises:
        InputError: it is no such file, is empty, or another one of a sampled set than the held-out half.
        CalibrationError: the set is mixed.

    """
    folder = set_of(path)
    if folder is None:
        return read_texts(path)
    heldout = f"{HELDOUT}.jsonl"
    if path.resolve().name != heldout:
        raise InputError(f"--heldout: {str(path)!r} is not held out, expected {str(folder / heldout)!r}")
    if texts := [Text(its.kind, its.text) for its in load(folder).heldout]:
        return texts
    raise InputError(f"--heldout: there is no text in {str(path)!r}: sample more prompts, so that some are held out")


def refuse_calibrated(texts: Sequence[Text], candidates: Sequence[Candidate]) -> None:
    """Raise InputError if the first texts are those that one of the checkpoints was calibrated on."""
    plain = [one.text for one in texts]
    for candidate in candidates:
        manifest = read_manifest(candidate.path)
        if manifest is not None and _is_calibrated_on(manifest, plain):
            raise InputError(f"--heldout: checkpoint {candidate.name} was calibrated on these texts: take others")


def _is_calibrated_on(manifest: Manifest, texts: list[str]) -> bool:
    """Tell whether the digest in the manifest is that of these texts, chosen and cut as `quantize` does.

    Those of a sampled set are taken in their order, those of a file in another.
    """
    try:
        its = manifest.fingerprint["recipe"]
        recipe = replace(RECIPES[its["name"]], mix=Mix(**its["mix"]))
        found = {digest(chosen(recipe, order)) for order in (texts, spread(texts))}
        return manifest.fingerprint["calibrated_on"] in found
    except (KeyError, TypeError):  # a recipe that looks at no texts, or a manifest that is not ours
        return False
