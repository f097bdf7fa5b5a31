"""What a label file says beside features and losses: kinds, agreement, and how sure the lowest tier was."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.control.ablation.cost_curves import Numbers
from calibration.control.losses import number_at
from calibration.errors import InputError
from calibration.texts.jsonl import read_lines


@dataclass(frozen=True, slots=True)
class _Line:
    tiers: dict[str, Any]  # JSON
    kind: str


@dataclass(frozen=True, slots=True)
class Beside:
    """Of the labels that have a loss of every tier, in the order of the file."""

    kinds: tuple[str, ...]
    others: Numbers | None  # a column for each tier; None: not of every label
    sure: dict[str, Numbers]  # by name, what is in the lowest tier's entry of every label
    entries: tuple[dict[str, Any], ...]  # the lowest tier's; JSON


def read_beside(path: Path, tiers: Sequence[str], measure: str, other: str, sure: Sequence[str]) -> Beside:
    """Read the file again; its lines have been checked."""
    lines = read_lines(path, "label", lambda line, _: _parts_of(json.loads(line)))
    known = [tier for tier in tiers if any(number_at(line.tiers.get(tier), measure) is not None for line in lines)]
    whole = [line for line in lines if all(number_at(line.tiers.get(tier), measure) is not None for tier in known)]
    table = [[number_at(line.tiers.get(tier), other) for tier in known] for line in whole]
    others = None
    if all(value is not None for row in table for value in row):
        others = np.array([[*row, *([0.0] * (len(tiers) - len(known)))] for row in table], float)
        if not (np.isfinite(others).all() and others.min() >= 0 and others.max() <= 1):
            raise InputError(f"{path}: {other!r} must be from 0 to 1 in every label: a share that disagrees, or a bool")
    # An entry that is a bool says whether the answer was right, and not how sure the tier was of it.
    entries = [line.tiers[tiers[0]] for line in whole]
    objects = tuple(entry if isinstance(entry, dict) else {} for entry in entries)
    columns = {name: [number_at(entry, name) for entry in objects] for name in sure}
    return Beside(
        kinds=tuple(line.kind for line in whole),
        others=others,
        sure={name: np.array(values, float) for name, values in columns.items() if all(map(_is_finite, values))},
        entries=objects,
    )


def _parts_of(fields: dict[str, Any]) -> _Line:  # Any: JSON
    kind = next((str(fields[name])[:80] for name in ("kind", "task") if fields.get(name)), "unknown")
    return _Line(fields.get("tiers", fields), kind)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
