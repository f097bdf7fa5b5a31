"""Ridge regression on the features and their squares. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitladder.policy_forms import Linear
from calibration.control.losses import Labels
from calibration.control.predictors.exported import FEW, Exported, fit_ranks, names_among
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.control.scores import fit_ridge


@dataclass(frozen=True, slots=True)
class Ridge:
    """Each tier's loss, by a sum of these features and their squares; None: of all features."""

    names: tuple[str, ...] | None = FEW

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> Exported:
        del seed
        return fit_ranks(labels, added, tiers, rows, names_among(labels, self.names), _ridge)


@dataclass(frozen=True, slots=True)
class OneFeature:
    """Each tier's loss, by one feature alone: what a predictor is held against."""

    name: str

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> Exported:
        del seed
        return fit_ranks(labels, added, tiers, rows, (self.name,), _slope)


def _ridge(names: Sequence[str], columns: Numbers, ranks: Numbers, weights: Numbers) -> Linear:
    del names
    return fit_ridge(columns, ranks, weights)


def _slope(names: Sequence[str], columns: Numbers, ranks: Numbers, weights: Numbers) -> Linear:
    """Return the least squares' line: of one feature it is a direction, and no more."""
    del names
    slope = float(np.average(columns[:, 0] * (ranks - np.average(ranks, weights=weights)), weights=weights))
    return Linear(high=1.0, intercept=float(ranks.mean()), weights=(slope,))
