"""Scores that need no model: one feature, the kind, or how sure the lowest tier was. Pure.

They are fitted as predictors are: each tier's mean loss, more of it the higher a prompt ranks among those of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.audit.features import rank_correlation
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Numbers, Rows

# The feature of a baseline, and whether a higher value means a higher tier: None lets the fit's labels say it.
FEATURES: dict[str, tuple[str, bool | None]] = {
    "entropy": ("entropy", True),  # the article's direction
    "length": ("bytes", None),
    "zlib ratio": ("zlib_ratio", None),
}


@dataclass(frozen=True, slots=True)
class _Ranked:
    values: Numbers
    seen: Numbers  # of the fit, sorted
    rises: bool
    means: Numbers

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        del labels
        values = self.values[rows]
        below = (np.searchsorted(self.seen, values, "left") + np.searchsorted(self.seen, values, "right")) / 2
        ranks = below / len(self.seen) if self.rises else 1 - below / len(self.seen)
        return np.asarray(2 * ranks[:, None] * self.means)

    def export(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ByValue:
    """A value of each label; `rises`: whether a higher one means more loss, None to let the labels say it."""

    values: Numbers
    rises: bool | None = None

    def fit(self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int) -> _Ranked:
        del labels, seed
        values, rises = self.values[rows], self.rises
        if rises is None:
            rises = (rank_correlation(values, added[tiers[0]][rows]) or 0.0) >= 0
        return _Ranked(self.values, np.sort(values), rises, np.array([added[tier][rows].mean() for tier in tiers]))


@dataclass(frozen=True, slots=True)
class _OfKind:
    kinds: Sequence[str]
    by_kind: Mapping[str, Numbers]
    otherwise: Numbers

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        del labels
        return np.array([self.by_kind.get(self.kinds[row], self.otherwise) for row in rows])

    def export(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ByKind:
    """The mean loss of the labels of the same kind: what knowing the kind alone is worth."""

    kinds: Sequence[str]

    def fit(self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int) -> _OfKind:
        del labels, seed
        table = np.array([added[tier][rows] for tier in tiers]).T
        kinds = np.array(self.kinds)[rows]
        means = {str(kind): table[kinds == kind].mean(axis=0) for kind in np.unique(kinds)}
        return _OfKind(self.kinds, means, table.mean(axis=0))
