"""Held-out text of one's own, and what would make it no held-out text: a checkpoint was calibrated on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calibration.errors import InputError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.texts import Text, read_texts
from calibration.manifest import NAME, Manifest, read_manifest
from calibration.prompts import chosen
from calibration.recipe import Mix
from calibration.recipes import RECIPES
from calibration.sample.sets import load
from calibration.sample.strata import HELDOUT
from calibration.samples import digest


def read_heldout(path: Path) -> list[Text]:
    """Read held-out text: the held-out half of a sampled set, which is checked as a whole, or any file of texts.

    Raises:
        InputError: it is no such file, or another one of a sampled set than the held-out half.
        CalibrationError: the set is mixed.

    """
    if path.name not in _files_of_set(path.parent):
        return read_texts(path)
    heldout = f"{HELDOUT}.jsonl"
    if path.name != heldout:
        raise InputError(f"--heldout: {str(path)!r} is not held out, expected {heldout} beside it")
    return [Text(its.kind, its.text) for its in load(path.parent).heldout]


def refuse_calibrated(texts: Sequence[Text], candidates: Sequence[Candidate]) -> None:
    """Raise InputError if the first texts are those that one of the checkpoints was calibrated on."""
    plain = [one.text for one in texts]
    for candidate in candidates:
        manifest = read_manifest(candidate.path)
        if manifest is not None and _is_calibrated_on(manifest, plain):
            raise InputError(f"--heldout: checkpoint {candidate.name} was calibrated on these texts: take others")


def _is_calibrated_on(manifest: Manifest, texts: list[str]) -> bool:
    """Tell whether the digest in the manifest is that of these texts, chosen and cut as `quantize` does."""
    try:
        its = manifest.fingerprint["recipe"]
        recipe = replace(RECIPES[its["name"]], mix=Mix(**its["mix"]))
        return bool(manifest.fingerprint["calibrated_on"] == digest(chosen(recipe, texts)))
    except (KeyError, TypeError):  # a recipe that looks at no texts, or a manifest that is not ours
        return False


def _files_of_set(folder: Path) -> set[str]:
    """Return the files that a sampled set's manifest lists; none where there is no set."""
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {its["name"] for its in manifest["files"]} if "sampler" in manifest["request"] else set()
    except (OSError, ValueError, TypeError, KeyError):
        return set()
