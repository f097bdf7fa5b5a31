"""Policies that see some of the lowest tier's answer before they decide, on labels they were not fitted on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bitladder.policy_forms import Linear
from calibration.control.ablation.baselines import ByValue
from calibration.control.ablation.comparison import Measured, Policy
from calibration.control.ablation.cost_curves import Numbers, cascade
from calibration.control.ablation.early_answers import SeenAnswer
from calibration.control.ablation.held_out import added_of, out_of_fold
from calibration.control.ablation.resampling import FOLDS
from calibration.control.ablation.stacking import MIN_FOLDS, Stages, nested, stacked
from calibration.control.losses import Labels
from calibration.control.predictors.exported import FEW, names_among
from calibration.control.predictors.predictor import Predictor, Rows
from calibration.control.predictors.registry import PREDICTORS
from calibration.control.scores import columns_of, fit_ridge, inputs_for, predict
from calibration.errors import InputError

_LEARNED = "ridge on features and answer"
_ROUTERS = ("ridge", "forest")  # before an early cascade


@dataclass(frozen=True, slots=True)
class _Fit:
    columns: Numbers
    form: Linear

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        del labels
        return predict(self.form, self.columns[rows])[:, None]

    def export(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _WithAnswer:
    """Ridge on features and on what the lowest tier's answer showed while it was written; None: on all features."""

    sure: Mapping[str, Numbers]
    names: tuple[str, ...] | None = FEW

    def fit(self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int) -> _Fit:
        del seed
        names = names_among(labels, self.names)
        places = [labels.names.index(name) for name in names]
        columns = columns_of(inputs_for(names, labels.features[rows][:, places]), labels.names, labels.features)
        shown = np.column_stack(list(self.sure.values()))
        deviation = shown[rows].std(axis=0)
        varied = deviation > 1e-9
        shown = (shown[:, varied] - shown[rows][:, varied].mean(axis=0)) / deviation[varied]
        columns = np.hstack([columns, shown])
        return _Fit(columns, fit_ridge(columns[rows], added[tiers[0]][rows]))


def cascades(labels: Labels, measured: Measured, folds: Rows, seed: int, answers: Sequence[SeenAnswer]) -> list[Policy]:
    """Return the policies that ask a higher tier where the lowest one was unsure of what it had written."""
    policies = []
    for seen in answers:
        unsure: dict[str, Predictor] = {f"cascade: {name}": ByValue(values) for name, values in seen.sure.items()}
        if unsure:
            unsure[f"cascade: {_LEARNED}"] = _WithAnswer(seen.sure, None if seen.tokens is None else FEW)
        for name, predictor in unsure.items():
            bounds, _ = out_of_fold(predictor, labels, measured, folds, seed)
            family = cascade(bounds[:, 0], seen.spent, measured.costs, measured.losses)
            named = _named(name, seen.tokens)
            policies.append(Policy(name=named, family=family, scores=bounds[:, 0], after=seen.tokens))
    return policies


def stacks(labels: Labels, measured: Measured, folds: Rows, seed: int, early: Sequence[SeenAnswer]) -> list[Policy]:
    """Return the policies that send some up by a router, and of the rest some after the beginning of an answer.

    Of many folds, five are made: each fold is predicted by as many fits as there are others.
    """
    folds = folds % FOLDS
    if not early or folds.max() + 1 < MIN_FOLDS:
        return []
    losses = added_of(measured)
    first = {}
    for name in _ROUTERS:
        with suppress(InputError):  # `routers` has said it
            first[name] = nested(PREDICTORS[name], labels, losses, folds, seed)
    policies = []
    for seen in early:
        second = nested(_WithAnswer(seen.sure), labels, losses, folds, seed)
        for name, router in first.items():
            family = stacked(Stages(router, second), seen.spent, folds, measured.costs, measured.losses)
            named = _named(f"stacked: {name}, then {_LEARNED}", seen.tokens)
            policies.append(Policy(name=named, family=family, after=seen.tokens))
    return policies


def _named(name: str, after: int | None) -> str:
    return name if after is None else f"{name} after {after}"
