"""Fits that routing can evaluate: a form for each tier, and how a form of ranks becomes one of losses. Pure.

Forms are fitted to the *rank* of a loss among the labels (0 to 1; equal losses share the mean of theirs): losses have
a long tail that a fit of the losses themselves follows, and ranks of right and wrong are right and wrong. Sources count
by the root of their size, so that a policy for new sources is not that of the largest one. The form's `bounds` say
which loss a predicted rank stands for (a line of its logarithm: two numbers, where a free curve follows noise), so that
limits are stated in units of the loss, and are comparable over tiers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np

from bitladder.policy_forms import Input, LearnedForm, Linear, Trees
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.control.scores import columns_of, inputs_for, predict, raw
from calibration.errors import InputError

# The features that a study of 1,596 prompts left over of 22 (docs/calibration/control-loop.md).
FEW = ("punctuation", "repeated_4grams", "chat", "digits", "non_ascii", "tokens")
# The features by name, their columns, the ranks of the losses and the rows' weights -> a form of the rank.
FitForm = Callable[[Sequence[str], Numbers, Numbers, Numbers], Linear | Trees]
_STEPS = 240  # of the bounds: policy_forms.py takes 256
_STEEPEST = 20.0  # of the loss's logarithm from the lowest rank to the highest


@dataclass(frozen=True, slots=True)
class Exported:
    """Inputs, and a form for each tier."""

    inputs: tuple[Input, ...]
    tiers: Mapping[str, Linear | Trees]

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        columns = columns_of(self.inputs, labels.names, labels.features[rows])
        return np.array([predict(form, columns) for form in self.tiers.values()]).T

    def export(self) -> LearnedForm:
        return LearnedForm(limit=0.0, inputs=self.inputs, tiers=dict(self.tiers))


def names_among(labels: Labels, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return those of these features that the labels have; all of theirs where that is less than half, or for None."""
    known = tuple(name for name in names or () if name in labels.names)
    return known if names is not None and 2 * len(known) >= len(names) else labels.names


def inputs_of_rows(labels: Labels, names: Sequence[str], rows: Rows) -> tuple[Input, ...]:
    """Return these features as inputs.

    Raises:
        InputError: all of them are the same everywhere.

    """
    places = [labels.names.index(name) for name in names]
    inputs = inputs_for(names, labels.features[rows][:, places])
    if not inputs:
        raise InputError("every feature has the same value in all labels: there is nothing to predict a loss by")
    return inputs


def fit_ranks(
    labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, names: Sequence[str], fit: FitForm
) -> Exported:
    """Fit a form of these features to the rank of each tier's loss."""
    inputs = inputs_of_rows(labels, names, rows)
    columns = columns_of(inputs, labels.names, labels.features[rows])
    weights = source_weights([labels.sources[row] for row in rows])
    used = tuple(item.name for item in inputs)
    forms = {}
    for tier in tiers:
        losses = added[tier][rows]
        forms[tier] = _in_losses(fit(used, columns, ranks(losses), weights), columns, losses)
    return Exported(inputs, forms)


def ranks(losses: Numbers) -> Numbers:
    """Return the share of these losses that is below each, and half of those that equal it."""
    _, place, counts = np.unique(losses, return_inverse=True, return_counts=True)
    shares: Numbers = ((np.cumsum(counts) - counts / 2) / len(losses))[place]
    return shares


def source_weights(sources: Sequence[str]) -> Numbers:
    """Return weights by which a source counts with the root of its labels; their mean is 1."""
    _, numbers, counts = np.unique(np.array(sources), return_inverse=True, return_counts=True)
    weights: Numbers = 1 / np.sqrt(counts[numbers])
    return np.asarray(weights / weights.mean())


def _in_losses(form: Linear | Trees, columns: Numbers, losses: Numbers) -> Linear | Trees:
    predicted = raw(form, columns)
    low, high = float(predicted.min()), float(predicted.max())
    bounds = loss_steps(predicted, losses)
    return msgspec.structs.replace(form, low=low, high=high, bounds=bounds)


def loss_steps(predicted: Numbers, losses: Numbers) -> tuple[tuple[float, float], ...]:
    """Return the loss that predictions up to each edge stand for, both rising: equal shares of these predictions."""
    values = np.unique(predicted)
    # Where a tier gains on average, being right more often than the top, there is no logarithm: it is counted from the
    # best label.
    lowest = min(float(losses.min()), 0.0) if losses.mean() <= 0 else 0.0
    slope, level = _log_line(predicted, losses - lowest)
    places = np.unique(np.linspace(0, len(values), min(_STEPS, len(values)) + 1).astype(int))
    pairs: list[tuple[float, float]] = []
    for begin, end in pairwise(places.tolist()):
        # Between two values, so that nothing that was fitted on stands at an edge.
        edge = float(values[-1] if end == len(values) else (values[end - 1] + values[end]) / 2)
        if not pairs or edge > pairs[-1][0]:
            pairs.append((edge, lowest + level * math.exp(slope * float(values[begin:end].mean() - predicted.mean()))))
    return tuple(pairs)


def _log_line(predicted: Numbers, losses: Numbers) -> tuple[float, float]:
    """Return the slope of the loss's logarithm over predictions, and the loss at their mean (Poisson's likelihood).

    So the sum of what is predicted is the sum of what was measured, whatever the losses' law. It does not fall.
    """
    centred, mean = predicted - predicted.mean(), float(losses.mean())
    slope, level = 0.0, mean
    if mean <= 0 or not centred.any():
        return slope, level
    for _ in range(50):
        shape = np.exp(slope * centred)
        level = float(losses.sum() / shape.sum())
        gradient = float(centred @ (losses - level * shape))
        spread = level * float(shape @ centred**2 - (shape @ centred) ** 2 / shape.sum())
        step = gradient / spread if spread > 0 else 0.0
        slope = min(max(slope + min(max(step, -5.0), 5.0), 0.0), _STEEPEST)
        if abs(step) < 1e-9:
            break
    return slope, float(losses.sum() / np.exp(slope * centred).sum())
