"""Predictions of labels that were not fitted on, and the policies that they make. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitladder.policy_forms import LearnedForm
from calibration.control.ablation.baselines import FEATURES, ByKind, ByValue
from calibration.control.ablation.comparison import FILE, Measured, Policy
from calibration.control.ablation.cost_curves import Numbers, by_limit
from calibration.control.ablation.served import bounds_of
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Fitted, Predictor, Rows
from calibration.control.predictors.registry import PREDICTORS
from calibration.errors import InputError


def predictors_of(labels: Labels, kinds: Sequence[str]) -> dict[str, Predictor]:
    """Return everything that is compared and is fitted: single features, the kind, and all predictors."""
    columns = {
        name: ByValue(labels.features[:, labels.names.index(feature)], rises)
        for name, (feature, rises) in FEATURES.items()
        if feature in labels.names
    }
    by_kind = {"kind alone": ByKind(kinds)} if len(set(kinds)) > 1 else {}
    return {**columns, **by_kind, **PREDICTORS}


@dataclass(slots=True)
class Routers:
    """The policies that predict before anybody answers, each by predictions of labels that it was not fitted on."""

    policies: list[Policy] = field(default_factory=list)
    fitted: dict[str, Fitted] = field(default_factory=dict)  # to some of the labels: to see how long it takes
    left_out: dict[str, str] = field(default_factory=dict)  # the reason


def routers(
    labels: Labels, measured: Measured, folds: Rows, seed: int, step: Callable[[], None] = lambda: None
) -> Routers:
    """Fit all predictors to the other folds of each fold."""
    made = Routers()
    for name, predictor in predictors_of(labels, measured.kinds).items():
        step()
        try:
            bounds, made.fitted[name] = out_of_fold(predictor, labels, measured, folds, seed)
        except InputError as error:
            made.left_out[name] = str(error)
            continue
        family = by_limit(bounds, measured.costs, measured.losses)
        differs = not isinstance(predictor, ByKind)
        made.policies.append(Policy(name=name, family=family, scores=bounds[:, 0], differs_within_kinds=differs))
    return made


def of_form(form: LearnedForm, labels: Labels, measured: Measured) -> Policy:
    """Return a policy's file at all limits."""
    bounds = bounds_of(form, labels, measured.ladder[:-1])
    return Policy(name=FILE, family=by_limit(bounds, measured.costs, measured.losses), scores=bounds.min(axis=1))


def out_of_fold(
    predictor: Predictor, labels: Labels, measured: Measured, folds: Rows, seed: int
) -> tuple[Numbers, Fitted]:
    """Return what each tier below the top is predicted to lose on labels that were not fitted on, and the last fit."""
    tiers, added, parts = measured.ladder[:-1], added_of(measured), []
    for fold in range(int(folds.max()) + 1):
        fitted = predictor.fit(labels, added, tiers, np.flatnonzero(folds != fold), seed)
        parts.append(fitted.losses(labels, np.flatnonzero(folds == fold)))
    bounds = np.empty((len(labels), parts[0].shape[1]))
    for fold, part in enumerate(parts):
        bounds[folds == fold] = part
    return bounds, fitted


def added_of(measured: Measured) -> dict[str, Numbers]:
    return {tier: measured.losses[:, at] for at, tier in enumerate(measured.ladder[:-1])}
