"""Forms of routing, evaluated over whole tables: each value is the one that routing computes, to the last bit. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitladder.policy_forms import Input, Linear, Node, Trees
from bitladder.routing.features import FEATURES

Numbers = NDArray[np.float64]
_STEPS = 100  # candidate limits for each tier
_PENALTY = 30.0  # in labels: little of it changes a fit of hundreds, and it holds one of dozens


def inputs_for(names: Sequence[str], features: Numbers) -> tuple[Input, ...]:
    """Return the features as predictors take them, each with a mean of 0 and a deviation of 1 among these labels.

    What spans orders of magnitude is taken as its logarithm.
    """
    inputs = []
    for column, name in enumerate(names):
        values = _log1p(features[:, column]) if FEATURES[name].is_long else features[:, column]
        if (deviation := float(values.std())) > 1e-9:
            inputs.append(Input(name=name, log=FEATURES[name].is_long, mean=float(values.mean()), scale=deviation))
    return tuple(inputs)


def columns_of(inputs: Sequence[Input], names: Sequence[str], features: Numbers) -> Numbers:
    """Return a row of inputs for every row of features, as routing computes one."""
    columns = []
    for item in inputs:
        values = features[:, names.index(item.name)]
        columns.append(((_log1p(values) if item.log else values) - item.mean) / item.scale)
    return np.array(columns).T.reshape(len(features), len(inputs))


def _log1p(values: Numbers) -> Numbers:
    """Return math.log1p of each: numpy's may differ in the last bit."""
    return np.array([math.log1p(value) for value in values.tolist()])


def fit_ridge(columns: Numbers, losses: Numbers, weights: Numbers | None = None, penalty: float = _PENALTY) -> Linear:
    """Return the ridge regression of losses on inputs and their squares; rows may have weights."""
    table, share = np.hstack([columns, columns**2]), np.ones(len(losses)) if weights is None else weights
    middle, mean = np.average(table, axis=0, weights=share), float(np.average(losses, weights=share))
    centered = (table - middle) * share[:, None]
    penalized = centered.T @ (table - middle) + penalty * np.eye(table.shape[1])
    slopes = np.linalg.solve(penalized, centered.T @ (losses - mean))
    count = columns.shape[1]
    return Linear(
        low=float(losses.min()),
        high=float(losses.max()),
        intercept=mean - float(middle @ slopes),
        weights=tuple(map(float, slopes[:count])),
        squares=tuple(map(float, slopes[count:])),
    )


def predict(predictor: Linear | Trees, columns: Numbers) -> Numbers:
    """Return the bound that routing computes for each row."""
    values = np.clip(raw(predictor, columns), predictor.low, predictor.high)
    if not predictor.bounds:
        return values
    edges, bounds = np.array(predictor.bounds).T
    held: Numbers = bounds[np.searchsorted(edges, values, side="left")]
    return held


def raw(predictor: Linear | Trees, columns: Numbers) -> Numbers:
    """Return what a predictor says before it is held between its limits."""
    if isinstance(predictor, Trees):
        added = np.zeros(len(columns))
        for tree in predictor.trees:
            added += _leaves(tree, columns)
        return predictor.base + added
    total = np.full(len(columns), predictor.intercept)
    for weight, values in zip(predictor.weights, columns.T, strict=True):
        total += weight * values
    for weight, values in zip(predictor.squares, columns.T, strict=False):
        total += weight * values * values
    return total


def _leaves(tree: Sequence[Node], columns: Numbers) -> Numbers:
    inputs, limits, below, above = (np.array(values) for values in zip(*map(_fields, tree), strict=True))
    places, rows = np.zeros(len(columns), dtype=np.intp), np.arange(len(columns))
    while (inputs[places] >= 0).any():  # a leaf leads to itself
        is_below = columns[rows, inputs[places]] <= limits[places]
        onward = np.where(is_below, below[places], above[places])
        places = np.where(inputs[places] >= 0, onward, places)
    leaves: Numbers = limits[places]
    return leaves


def _fields(node: Node) -> tuple[int, float, int, int]:
    return node.input, node.value, node.below, node.above


def fixed_limits(bounds: Numbers, tiers: int) -> Numbers:
    """Return candidate limits, the lowest first: equal shares of the bounds of all of so many tiers.

    Up to the lowest bound of each prompt only, a tier that always is below another would shut it out. They rest on no
    loss: what is tested in a fixed sequence must be fixed before its labels are looked at.
    """
    return np.unique(np.quantile(bounds, np.linspace(0, 1, _STEPS * tiers + 1)))


def chosen_tiers(bounds: Numbers, limit: float) -> NDArray[np.intp]:
    """Return the place of the lowest tier whose bound is within the limit; behind the last one, the top."""
    within = np.hstack([bounds <= limit, np.ones((len(bounds), 1), dtype=bool)])
    places: NDArray[np.intp] = within.argmax(axis=1)
    return places
