"""What a tier is predicted to lose on a prompt: ridge on features and their squares, as routing evaluates it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitladder.policy_forms import Input, Linear

Numbers = NDArray[np.float64]
_PENALTY = 30.0  # in labels: little of it changes a fit of hundreds, and it holds one of dozens
_LONG = ("bytes", "characters", "words", "tokens", "line_length")  # over orders of magnitude: as logarithms


def inputs_for(names: Sequence[str], features: Numbers) -> tuple[Input, ...]:
    """Return the features as predictors take them, each with a mean of 0 and a deviation of 1 among these labels."""
    inputs = []
    for column, name in enumerate(names):
        values = np.log1p(features[:, column]) if name in _LONG else features[:, column]
        if (deviation := float(values.std())) > 1e-9:
            inputs.append(Input(name=name, log=name in _LONG, mean=float(values.mean()), scale=deviation))
    return tuple(inputs)


def columns_of(inputs: Sequence[Input], names: Sequence[str], features: Numbers) -> Numbers:
    """Return a row of inputs for every row of features, as routing computes one."""
    columns = []
    for item in inputs:
        values = features[:, names.index(item.name)]
        columns.append(((np.log1p(values) if item.log else values) - item.mean) / item.scale)
    return np.array(columns).T.reshape(len(features), len(inputs))


def fit_ridge(columns: Numbers, losses: Numbers) -> Linear:
    """Return the ridge regression of losses on inputs and their squares."""
    table = np.hstack([columns, columns**2])
    middle = table.mean(axis=0)
    centered = table - middle
    penalized = centered.T @ centered + _PENALTY * np.eye(table.shape[1])
    weights = np.linalg.solve(penalized, centered.T @ (losses - losses.mean()))
    count = columns.shape[1]
    return Linear(
        low=float(losses.min()),
        high=float(losses.max()),
        intercept=float(losses.mean() - middle @ weights),
        weights=tuple(map(float, weights[:count])),
        squares=tuple(map(float, weights[count:])),
    )


def predict(predictor: Linear, columns: Numbers) -> Numbers:
    """Return the bound that routing computes for each row."""
    values = predictor.intercept + columns @ np.array(predictor.weights) + columns**2 @ np.array(predictor.squares)
    held: Numbers = np.clip(values, predictor.low, predictor.high)
    return held


def chosen_tiers(bounds: Numbers, limit: float) -> NDArray[np.intp]:
    """Return the place of the lowest tier whose bound is within the limit; behind the last one, the top."""
    within = np.hstack([bounds <= limit, np.ones((len(bounds), 1), dtype=bool)])
    places: NDArray[np.intp] = within.argmax(axis=1)
    return places
