"""Trees of scikit-learn, as routing evaluates them: a forest, one that is monotone, and gradient boosting. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor

from bitladder.policy_forms import Node, Trees
from calibration.audit.features import rank_correlation
from calibration.control.losses import Labels
from calibration.control.predictors.exported import FEW, Exported, fit_ranks, names_among
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.errors import InputError

# What takes routing over 10 microseconds for 2 KB is left out: a forest has to take under 100 with all of its trees.
_QUICK = (
    "bytes", "characters", "tokens", "tokens_per_byte", "bytes_per_character", "line_length", "repeated_lines",
    "repeated_4grams", "digits", "punctuation", "brackets", "uppercase", "spaces", "newlines", "non_ascii", "question",
    "chat",
)  # fmt: skip
_LEAVES = 32  # a tree of 63 nodes
_HALF = 32  # trees: with twice as many, routing would take 100 us where three tiers are tuned
_GRID = 2.0**40  # leaves are multiples of 1 / this, so that their sum is exact in any order
_PARTS, _WEAKEST = 5, 0.05


@dataclass(frozen=True, slots=True)
class Forest:
    """Half of the trees on few features, which carry to new sources, and half on many, for those that are known."""

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> Exported:
        def fit(names: Sequence[str], columns: Numbers, ranks: Numbers, weights: Numbers) -> Trees:
            few = [place for place, name in enumerate(names) if name in FEW] or list(range(len(names)))
            narrow = RandomForestRegressor(
                _HALF, max_leaf_nodes=_LEAVES, min_samples_leaf=10, max_features=1 / 3, random_state=seed
            ).fit(columns[:, few], ranks, weights)
            wide = ExtraTreesRegressor(
                _HALF, max_leaf_nodes=_LEAVES, min_samples_leaf=5, max_features=1.0, random_state=seed
            ).fit(columns, ranks, weights)
            trees = [_nodes(tree.tree_, 0.5 / _HALF, few) for tree in narrow.estimators_]
            places = range(len(names))
            return Trees(
                high=1, trees=(*trees, *(_nodes(tree.tree_, 0.5 / _HALF, places) for tree in wide.estimators_))
            )

        return fit_ranks(labels, added, tiers, rows, names_among(labels, _QUICK), fit)


@dataclass(frozen=True, slots=True)
class Boosted:
    """Gradient-boosted trees of eight leaves."""

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> Exported:
        def fit(names: Sequence[str], columns: Numbers, ranks: Numbers, weights: Numbers) -> Trees:
            rate = 0.05
            boosted = GradientBoostingRegressor(
                n_estimators=100, max_depth=3, learning_rate=rate, subsample=0.5, min_samples_leaf=20,
                max_features=0.5, random_state=seed,
            ).fit(columns, ranks, weights)  # fmt: skip
            places = range(len(names))
            trees = tuple(_nodes(tree.tree_, rate, places) for tree in boosted.estimators_[:, 0])
            return Trees(high=1, base=_exact(float(boosted.init_.constant_.item())), trees=trees)

        return fit_ranks(labels, added, tiers, rows, names_among(labels, FEW), fit)


@dataclass(frozen=True, slots=True)
class Monotone:
    """A forest on features whose direction is the same in all parts of the labels; its bounds only go that way."""

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> Exported:
        ways = directions(labels, added[tiers[0]], rows)
        if not ways:
            raise InputError("no feature goes the same way with the loss in all parts of the labels")

        def fit(names: Sequence[str], columns: Numbers, ranks: Numbers, weights: Numbers) -> Trees:
            forest = RandomForestRegressor(
                _HALF, max_leaf_nodes=_LEAVES, min_samples_leaf=10, max_features=1 / 3, random_state=seed,
                monotonic_cst=[ways[name] for name in names],
            ).fit(columns, ranks, weights)  # fmt: skip
            places = range(len(names))
            return Trees(high=1, trees=tuple(_nodes(tree.tree_, 1 / _HALF, places) for tree in forest.estimators_))

        return fit_ranks(labels, added, tiers, rows, tuple(ways), fit)


def directions(labels: Labels, losses: Numbers, rows: Rows) -> dict[str, int]:
    """Return which features rise (1) or fall (-1) with the loss in each of five parts of the sources, beyond noise."""
    names = names_among(labels, _QUICK)
    _, numbers = np.unique(np.array([labels.sources[row] for row in rows]), return_inverse=True)
    parts = numbers if numbers.max() + 1 >= _PARTS else np.arange(len(rows))
    ways = {}
    for name in names:
        values = labels.features[rows, labels.names.index(name)]
        correlations = [
            rank_correlation(values[is_in], losses[rows][is_in]) or 0.0
            for is_in in (parts % _PARTS == part for part in range(_PARTS))
        ]
        if min(correlations) > _WEAKEST or max(correlations) < -_WEAKEST:
            ways[name] = 1 if correlations[0] > 0 else -1
    return ways


class _Tree(Protocol):
    """A fitted tree of scikit-learn: its nodes in columns."""

    feature: NDArray[np.intp]
    threshold: Numbers
    children_left: NDArray[np.intp]
    children_right: NDArray[np.intp]
    value: Numbers


def _nodes(tree: _Tree, share: float, inputs: Sequence[int]) -> tuple[Node, ...]:
    """Return a tree whose leaves count by this share, on inputs at these places."""
    columns = (tree.feature, tree.threshold, tree.children_left, tree.children_right, tree.value[:, 0, 0])
    return tuple(
        Node(input=inputs[feature], value=limit, below=below, above=above)
        if below >= 0
        else Node(input=-1, value=_exact(share * value))
        for feature, limit, below, above, value in zip(*(column.tolist() for column in columns), strict=True)
    )


def _exact(value: float) -> float:
    return round(value * _GRID) / _GRID
