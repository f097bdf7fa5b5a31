"""Cross-validation of predictors, in folds drawn by chance and in folds of whole sources, and the choice by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.audit.features import rank_correlation
from calibration.control.decision_latency import MAX_US, latency_us
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Numbers, Predictor, Rows
from calibration.errors import InputError

_FOLDS = {"random": 10, "by_source": 20}  # as many sources as possible are fitted, as all are in what serves
_CHOICE_FOLDS = 5
_MIN_SOURCES = 5
_RESAMPLES = 200
Advance = Callable[[str], None]


def _silent(name: str) -> None:
    del name


@dataclass(frozen=True, slots=True)
class Sample:
    """Labels, the loss of one tier, and the seed."""

    labels: Labels
    tier: str
    losses: Numbers  # of all labels
    seed: int

    def units(self, split: str, rows: Rows) -> list[str]:
        """Return what must not be divided: the same text, or the same source."""
        units = self.labels.sources if split == "by_source" else self.labels.groups
        return [units[row] for row in rows]

    def predict(self, predictor: Predictor, rows: Rows, others: Rows) -> Numbers:
        """Fit to these rows, and return where the other rows' predictions stand among these rows': 0 to 1.

        Limits are set among the predictions of the fit, so this is what the policies of two fits have in common.
        """
        fitted = predictor.fit(self.labels, {self.tier: self.losses}, [self.tier], rows, self.seed)
        of_fit = np.sort(fitted.losses(self.labels, rows)[:, 0])
        others_losses = fitted.losses(self.labels, others)[:, 0]
        sides = [np.searchsorted(of_fit, others_losses, side) for side in ("left", "right")]
        return np.asarray((sides[0] + sides[1]) / (2 * len(rows)))

    def out_of_fold(self, predictor: Predictor, rows: Rows, folds: Rows) -> Numbers:
        """Return predictions of these rows, each by a fit to the other folds; `folds` has one for each of the rows."""
        predicted = np.empty(len(rows))
        for fold in range(int(folds.max()) + 1):
            predicted[folds == fold] = self.predict(predictor, rows[folds != fold], rows[folds == fold])
        return predicted


def folds_of(units: Sequence[str], count: int, seed: int) -> Rows | None:
    """Return a fold for every row, drawn by chance; rows of the same unit are in the same one. None: too few units."""
    known, numbers = np.unique(np.array(units), return_inverse=True)
    if len(known) < _MIN_SOURCES:
        return None
    placed: Rows = (np.random.default_rng(seed).permutation(len(known)) % min(count, len(known)))[numbers]
    return placed


def compare(
    predictors: Mapping[str, Predictor], sample: Sample, advance: Advance = _silent, repeats: int = 1
) -> dict[str, dict[str, Any]]:  # Any: JSON
    """Return Spearman's correlation of predicted and measured loss on all labels, by predictor and split.

    Every label is predicted by a fit to the other folds. Intervals of 95 % are over labels, or over whole sources.
    """
    figures: dict[str, dict[str, Any]] = {}
    for name, predictor in predictors.items():
        advance(name)
        try:
            figures[name] = _compared(predictor, sample, repeats)
        except InputError as error:
            figures[name] = {"left_out": str(error)}
    return figures


def _compared(predictor: Predictor, sample: Sample, repeats: int) -> dict[str, Any]:  # Any: JSON
    rows = np.arange(len(sample.labels))
    figures = {}
    for split, count in _FOLDS.items():
        units = sample.units(split, rows)
        tables = []
        for turn in range(repeats):
            if (folds := folds_of(units, count, sample.seed + turn)) is not None:
                tables.append(sample.out_of_fold(predictor, rows, folds))
        if tables:
            figures[split] = correlation(tables, sample.losses, units, sample.seed)
    return figures


def correlation(tables: Sequence[Numbers], losses: Numbers, units: Sequence[str], seed: int) -> dict[str, float]:
    """Return the mean correlation of these predictions with the losses, and its interval, resampling whole units."""
    _, numbers = np.unique(np.array(units), return_inverse=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    chance, drawn = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([members[place] for place in chance.integers(0, len(members), len(members))])
        drawn.append(_mean_correlation([table[rows] for table in tables], losses[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return {"spearman": round(_mean_correlation(tables, losses), 4), "low": round(low, 4), "high": round(high, 4)}


def _mean_correlation(tables: Sequence[Numbers], losses: Numbers) -> float:
    return float(np.mean([rank_correlation(table, losses) or 0.0 for table in tables]))


@dataclass(slots=True)
class Choice:
    """What was chosen among the candidates and why, and what was refused."""

    name: str = ""
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)  # in folds of the fit's labels
    refused: dict[str, str] = field(default_factory=dict)
    latency_us: dict[str, dict[str, float]] = field(default_factory=dict)


def choose(
    candidates: Mapping[str, Predictor], sample: Sample, tiers: Mapping[str, Numbers], rows: Rows,
    advance: Advance = _silent,
) -> Choice:  # fmt: skip
    """Choose the simplest candidate (the first) that is within one standard error of the best, by these rows alone.

    What counts is Spearman's correlation within each fold: five drawn by chance, and five of whole sources. The error
    is that of the folds' paired differences from the best.

    Raises:
        InputError: none can be fitted, and evaluated quickly enough.

    """
    choice, by_fold = Choice(), {}
    for name, predictor in candidates.items():
        advance(name)
        try:
            form = predictor.fit(sample.labels, tiers, list(tiers), rows, sample.seed).export()
            if form is None:
                raise InputError("routing cannot evaluate it")
            choice.latency_us[name] = latency_us(form)
            if (took := choice.latency_us[name]["p50"]) >= MAX_US:
                raise InputError(f"takes {took:g} us for a prompt of 2 KB; it must be under {MAX_US:g}")
            by_fold[name] = _by_fold(predictor, sample, rows) if len(candidates) > 1 else np.zeros(1)
        except InputError as error:
            choice.refused[name] = str(error)
    if not by_fold:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in choice.refused.items())
        raise InputError(f"no predictor can be used: {reasons}")
    choice.name, choice.reason = _simplest(by_fold)
    if len(candidates) > 1:
        choice.scores = {name: round(float(values.mean()), 4) for name, values in by_fold.items()}
    return choice


def _by_fold(predictor: Predictor, sample: Sample, rows: Rows) -> Numbers:
    values = []
    for split in _FOLDS:
        if (folds := folds_of(sample.units(split, rows), _CHOICE_FOLDS, sample.seed)) is None:
            continue
        predicted, losses = sample.out_of_fold(predictor, rows, folds), sample.losses[rows]
        places = [folds == fold for fold in range(int(folds.max()) + 1)]
        values += [rank_correlation(predicted[place], losses[place]) or 0.0 for place in places]
    return np.array(values or [0.0])


def _simplest(by_fold: Mapping[str, Numbers]) -> tuple[str, str]:
    """Return the first candidate that is no more than one standard error behind the best one, and the reason."""
    if len(by_fold) == 1:
        return next(iter(by_fold)), "the only one"
    best = max(by_fold, key=lambda name: float(by_fold[name].mean()))
    for name, values in by_fold.items():
        behind = by_fold[best] - values
        error = float(behind.std() / np.sqrt(max(1, len(behind) - 1)))
        if name != best and behind.mean() <= error:
            return name, f"simpler than {best}, and {behind.mean():.3f} behind: within one standard error ({error:.3f})"
        if name == best:
            break
    return best, "the best, and nothing simpler is within one standard error"
