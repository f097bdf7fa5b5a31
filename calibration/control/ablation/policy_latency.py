"""How long a score takes on a prompt of 2 KB: its features and its prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitladder.routing.features import FEATURES
from calibration.control.ablation.baselines import FEATURES as BASELINES
from calibration.control.decision_latency import features_of_2_kb, latency_us, time_us
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Fitted


def latencies_us(fitted: Mapping[str, Fitted], labels: Labels) -> dict[str, dict[str, object]]:
    """Return for each score the median time in microseconds, and whether that is the code that serves.

    A score that routing cannot evaluate is timed as it was fitted, on one label.
    """
    names = tuple(name for name in labels.names if name in FEATURES)
    figures: dict[str, dict[str, object]] = {}
    for name, fit in fitted.items():
        form = fit.export()
        if name in BASELINES:
            figures[name] = {"us": _features_us((BASELINES[name][0],)), "serves": name == "entropy"}
        elif form is not None:
            figures[name] = {"us": latency_us(form)["p50"], "serves": True}
        else:
            figures[name] = {"us": round(_features_us(names) + _prediction_us(fit, labels), 1), "serves": False}
    return figures


def _features_us(names: tuple[str, ...]) -> float:
    return time_us(lambda: features_of_2_kb(names))["p50"]


def _prediction_us(fit: Fitted, labels: Labels) -> float:
    row = np.zeros(1, np.intp)
    return time_us(lambda: fit.losses(labels, row))["p50"]
