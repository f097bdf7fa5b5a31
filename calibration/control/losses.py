"""Label files: for each prompt its features, where it comes from, and what each tier loses on it.

A line is a JSON object: `features` by the names of routing (docs/routing.md), or `prompt`, of which they are computed;
`source` and `kind` (or `task`); `id`, by which lines of the same text are known; and of every tier an object of
measures, as `{"kl": 0.1, "flips": 0.02}`, or a bool that says whether its answer was right. Tiers stand in the line
itself or under `tiers`. Where a measure is a mean over several answers, `kl_answers` has it along each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitladder.policy_forms import FEATURE_NAMES
from calibration.audit.features import NAMES, score
from calibration.errors import InputError
from calibration.texts.jsonl import read_lines

Numbers = NDArray[np.float64]
MAX_LABELS = 200_000
# Names in files of earlier studies, which had logarithms (of 1 + value) of what spans orders of magnitude.
_OTHER_NAMES = {
    "word_len": "word_length", "punct": "punctuation", "upper": "uppercase", "space": "spaces", "newline": "newlines",
    "code_like": "code_likeness", "bytes_per_char": "bytes_per_character", "rep4": "repeated_4grams",
    "rep_line": "repeated_lines", "tok_per_byte_est": "tokens_per_byte", "qmark": "question",
}  # fmt: skip
_LOGARITHMS = {"log_bytes": "bytes", "log_words": "words", "tok_est": "tokens", "mean_line": "line_length"}
_MAX_LOSS = 1e6
_MAX_CHARS = 2048  # that are kept of a text
_HASH = 16  # digits


@dataclass(frozen=True, slots=True)
class Labels:
    """Prompts in rows: their features, their losses by tier, and where each is from.

    Rows of the same group have the same text, as far as the file says: they must not be divided. Texts are the
    beginnings of the prompts, or () where a line has none. Where losses are means over several answers, `along_one` has
    those along one of them.
    """

    names: tuple[str, ...]
    features: Numbers
    losses: dict[str, Numbers]
    sources: tuple[str, ...]
    groups: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    along_one: dict[str, Numbers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.groups:
            object.__setattr__(self, "groups", tuple(map(str, range(len(self.sources)))))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def of_requests(self) -> dict[str, Numbers]:
        """Return what each tier loses on a request, which gets one answer."""
        return {tier: self.along_one.get(tier, losses) for tier, losses in self.losses.items()}


@dataclass(frozen=True, slots=True)
class _Line:
    features: dict[str, float]
    losses: dict[str, float]
    along_one: dict[str, float]
    source: str
    group: str
    reference: str  # '' where the line does not say it
    text: str | None


def read_labels(path: Path, tiers: tuple[str, ...], measure: str) -> tuple[Labels, int]:
    """Return the lines that have a loss of every one of these tiers, and how many others there are.

    The last tier is what the others are held against: of each loss its own is taken off, where it has one anywhere.

    Raises:
        InputError: a line is none, there are too many, or no line has a loss of all tiers.

    """
    count = 0

    def read(line: str, where: str) -> _Line:
        nonlocal count
        count += 1
        if count > MAX_LABELS:  # while it is read: a file may be larger than the memory
            raise InputError(f"{where}: more than {MAX_LABELS:,} labels: take a sample of them")
        return _read(line, where, tiers, measure)

    lines = read_lines(path, "label", read)
    if not any(tiers[-1] in line.losses for line in lines):
        _check_reference(path, lines, tiers[-1], measure)
        tiers = tiers[:-1]
    whole = [line for line in lines if len(line.losses) == len(tiers)]
    if not whole:
        counts = Counter(tier for line in lines for tier in line.losses)
        seen = ", ".join(f"{tier} {counts[tier]}" for tier in tiers)
        raise InputError(f"{path}: none of {len(lines):,} lines has {measure!r} of every tier; lines with it: {seen}")
    return _labels(path, whole, tiers), len(lines) - len(whole)


def _check_reference(path: Path, lines: list[_Line], top: str, measure: str) -> None:
    """Raise InputError where lines without a loss of the top say that they are held against something else."""
    others = {line.reference for line in lines} - {"", top}
    if others:
        raise InputError(
            f"{path}: no line has {measure!r} of {top!r}, and the losses are held against {', '.join(sorted(others))}: "
            "the top must be that, or have losses of its own"
        )


def _labels(path: Path, lines: list[_Line], tiers: tuple[str, ...]) -> Labels:
    names = tuple(name for name in FEATURE_NAMES if all(name in line.features for line in lines))
    if not names:
        raise InputError(f"{path}: no feature is in every line, expected some of {', '.join(FEATURE_NAMES)}")
    return Labels(
        names=names,
        features=np.array([[line.features[name] for name in names] for line in lines]),
        losses={tier: np.array([line.losses[tier] for line in lines]) for tier in tiers},
        along_one={tier: np.array([line.along_one[tier] for line in lines]) for tier in tiers},
        sources=tuple(line.source for line in lines),
        groups=tuple(line.group for line in lines),
        texts=texts if len(texts := tuple(line.text for line in lines if line.text is not None)) == len(lines) else (),
    )


def _read(line: str, where: str, tiers: tuple[str, ...], measure: str) -> _Line:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}: expected an object, got {line[:80]!r}")
    under = fields.get("tiers", fields)
    if not isinstance(under, dict):
        raise InputError(f"{where}: tiers must be an object, got {str(under)[:80]!r}")
    read = {tier: _loss(under[tier], measure, f"{where}: {tier}") for tier in tiers if tier in under}
    losses = {tier: loss for tier, loss in read.items() if loss is not None}
    features, prompt = _features(fields, where), fields.get("prompt")
    return _Line(
        features,
        losses,
        {tier: _along_one(under[tier], measure, f"{where}: {tier}", loss) for tier, loss in losses.items()},
        next((str(fields[name])[:200] for name in ("source", "task", "kind") if fields.get(name)), "unknown"),
        _group(fields, features),
        str(fields.get("reference") or "")[:200],
        prompt[:_MAX_CHARS] if isinstance(prompt, str) else None,
    )


def _group(fields: Mapping[str, Any], features: Mapping[str, float]) -> str:  # Any: JSON
    """Return what lines of the same text have in common: the text, its hash, its id, or else all features."""
    # A label's id is the beginning of its text's hash: a line with the text and one without it are the same.
    if isinstance(prompt := fields.get("prompt"), str):
        return hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:_HASH]
    lengths = {"sha256": _HASH, "sha256_16": _HASH, "id": 200}
    return next(
        (str(fields[name])[:length] for name, length in lengths.items() if fields.get(name) is not None),
        str(sorted(features.items())),
    )


def value_at(entry: object, measure: str) -> object:
    """Return what a tier's entry has under a measure (`answer.kl` is kl of answer), or None.

    An entry that is a bool says whether the answer was right: 0 or 1 under every measure.
    """
    if isinstance(entry, bool):
        return 0.0 if entry else 1.0
    for part in measure.split("."):
        entry = entry.get(part) if isinstance(entry, dict) else None
    return entry


def number_at(entry: object, measure: str) -> float | None:
    """Return the number that a tier's entry has under a measure, or None."""
    return _finite(value_at(entry, measure))


def number_along_one(entry: object, measure: str) -> float | None:
    """Return the number along the first answer where the measure is a mean over several: each is as good."""
    of_each = value_at(entry, f"{measure}_answers")
    return _finite(of_each[0]) if isinstance(of_each, list) and of_each else number_at(entry, measure)


def _finite(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _loss(entry: object, measure: str, where: str) -> float | None:
    if not isinstance(entry, bool | dict):
        raise InputError(f"{where} must be an object with {measure!r}, or a bool, got {str(entry)[:80]!r}")
    value = value_at(entry, measure)
    return None if value is None else _number(value, f"{where}.{measure}", low=0.0, high=_MAX_LOSS)


def _along_one(entry: object, measure: str, where: str, mean: float) -> float:
    """Return the loss along the first of several answers: one is as good as another; of one answer its loss."""
    name = f"{measure}_answers"
    of_each = value_at(entry, name) if isinstance(entry, dict) else None
    if of_each is None:
        return mean
    if not isinstance(of_each, list) or not of_each:
        raise InputError(f"{where}.{name} must be a list of numbers, got {str(of_each)[:80]!r}")
    return _number(of_each[0], f"{where}.{name}[0]", low=0.0, high=_MAX_LOSS)


def _features(fields: Mapping[str, Any], where: str) -> dict[str, float]:  # Any: JSON
    features = fields.get("features")
    if features is None and isinstance(fields.get("prompt"), str):
        computed = score(fields["prompt"])
        return {name: computed[name] for name in NAMES}
    if not isinstance(features, dict):
        raise InputError(f'{where}: expected "features", an object of numbers, or "prompt", a text')
    known = {}
    for name, value in features.items():
        if name in _LOGARITHMS:
            known[_LOGARITHMS[name]] = math.expm1(_number(value, f"{where}: feature {name}", low=0, high=20))
        elif (usual := _OTHER_NAMES.get(name, name)) in FEATURE_NAMES:
            known[usual] = _number(value, f"{where}: feature {name}", low=0, high=1e9)
    return known


def _number(value: object, what: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  (NaN)
        raise InputError(f"{what} must be a number, got {str(value)[:80]!r}")
    if not low <= value <= high:
        raise InputError(f"{what} must be from {low:g} to {high:g}, got {str(value)[:80]}")
    return float(value)
