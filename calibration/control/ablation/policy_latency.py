"""How long a score takes on a prompt of 2 KB: its features and its prediction."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.policy_forms import LearnedForm
from bitladder.routing.features import FEATURES, score_prompt
from bitladder.routing.policies.learned import bound, inputs_of
from calibration.control.ablation.baselines import FEATURES as BASELINES
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Fitted

_TEXT = (
    b"Summarise the following report of 2024-05-17 for a customer who has 3 minutes: what changed, and why? " * 21
)[:2048]
_REPEATS, _MAX_S = 200, 0.1


def latencies_us(fitted: Mapping[str, Fitted], labels: Labels) -> dict[str, dict[str, object]]:
    """Return for each score the median time in microseconds, and whether that is the code that serves.

    A score that routing cannot evaluate is timed as it was fitted, on one label.
    """
    row = np.zeros(1, np.intp)
    figures: dict[str, dict[str, object]] = {}
    for name, fit in fitted.items():
        form = fit.export()
        if name in BASELINES:
            figures[name] = {"us": _time_us(_features_of((BASELINES[name][0],))), "serves": name == "entropy"}
        elif form is not None:
            figures[name] = {"us": _time_us(_served(form)), "serves": True}
        else:
            features = _features_of(tuple(name for name in labels.names if name in FEATURES))
            predict = lambda fit=fit: fit.losses(labels, row)  # noqa: E731
            figures[name] = {"us": _time_us(features) + _time_us(predict), "serves": False}
    return figures


def _features_of(names: tuple[str, ...]) -> Callable[[], Score]:
    return lambda: score_prompt(_TEXT, Endpoint.COMPLETIONS, names)


def _served(form: LearnedForm) -> Callable[[], list[float]]:
    features = _features_of(tuple(item.name for item in form.inputs))

    def decide() -> list[float]:
        inputs = inputs_of(form.inputs, features())
        return [bound(predictor, inputs) for predictor in form.tiers.values()]

    return decide


def _time_us(function: Callable[[], object]) -> float:
    function()
    times: list[float] = []
    end = time.perf_counter() + _MAX_S
    while len(times) < _REPEATS and (len(times) < 5 or time.perf_counter() < end):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return float(f"{1e6 * statistics.median(times):.3g}")
