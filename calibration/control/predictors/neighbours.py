"""What similar labels lost: the nearest ones, and those of the same cluster. Routing evaluates neither: baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsRegressor

from bitladder.policy_forms import Input
from calibration.control.losses import Labels
from calibration.control.predictors.exported import inputs_of_rows
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.control.scores import columns_of


@dataclass(frozen=True, slots=True)
class ByColumns:
    """A fit that predicts from standardised features, and has no form."""

    inputs: tuple[Input, ...]
    predict: Callable[[Numbers], Numbers]

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        return self.predict(columns_of(self.inputs, labels.names, labels.features[rows]))

    def export(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Nearest:
    """The mean loss of the nearest labels on standardised features."""

    count: int = 25

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> ByColumns:
        del seed
        inputs, columns, losses = _tables(labels, added, tiers, rows)
        nearest = KNeighborsRegressor(min(self.count, len(rows))).fit(columns, losses)
        return ByColumns(inputs, nearest.predict)


@dataclass(frozen=True, slots=True)
class Clusters:
    """The mean loss of the labels in the same cluster (k-means)."""

    count: int = 20

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> ByColumns:
        inputs, columns, losses = _tables(labels, added, tiers, rows)
        clusters = KMeans(min(self.count, len(np.unique(columns, axis=0))), n_init=3, random_state=seed).fit(columns)
        means = np.array([losses[clusters.labels_ == place].mean(axis=0) for place in range(clusters.n_clusters)])

        def predict(others: Numbers) -> Numbers:
            lost: Numbers = means[clusters.predict(others)]
            return lost

        return ByColumns(inputs, predict)


def _tables(
    labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows
) -> tuple[tuple[Input, ...], Any, Any]:  # Any: what scikit-learn takes
    inputs = inputs_of_rows(labels, labels.names, rows)
    columns = columns_of(inputs, labels.names, labels.features[rows])
    return inputs, columns, np.array([added[tier][rows] for tier in tiers]).T
