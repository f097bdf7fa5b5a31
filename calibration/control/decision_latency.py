"""How long routing takes to score a prompt of 2 KB and to decide: by its own functions."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.policy_forms import LearnedForm
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.features import score_prompt
from bitladder.routing.policies import policy_of
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings

MAX_US = 100.0
_NAME = "tuned"
_TEXT = (
    "Summarise the report of 2024-05-17 for a customer who has 3 minutes: what changed, and why? "
    'def total(rows):\n    return sum(row["price"] * 1.19 for row in rows)  # with tax\n'
    "Übrigens: 温度は「高い」です。 | a, b; c! |\n"
)
_BYTES = 2048
_PROMPT = (_TEXT * 20).encode()[:_BYTES]
_RUNS, _ROUNDS = 200, 3
_MAX_ROUND_S, _MIN_RUNS = 0.1, 5  # what is never served may take milliseconds


def latency_us(form: LearnedForm) -> dict[str, float]:
    """Return the median and the 99th percentile, in microseconds.

    It is of requests that no tier below the top is right for: all bounds are computed.
    """
    settings = NamedPolicySettings(kind="learned", file=_NAME, form=form)
    policy = policy_of(PolicySettings(name=_NAME), {_NAME: settings})
    constraints = constraints_of(Envelope(), (*form.tiers, "the top"))
    return time_us(lambda: policy.decide(features_of_2_kb(policy.features), constraints))


def features_of_2_kb(names: tuple[str, ...]) -> Score:
    return score_prompt(_PROMPT, Endpoint.CHAT, names)


def time_us(function: Callable[[], object]) -> dict[str, float]:
    """Return the median and the 99th percentile; of three rounds the quickest: others use the machine."""
    quantiles = [np.quantile(_round(function), (0.5, 0.99)) for _ in range(_ROUNDS)]
    p50, p99 = np.min(quantiles, axis=0).tolist()
    return {"p50": round(1e6 * p50, 1), "p99": round(1e6 * p99, 1)}


def _round(function: Callable[[], object]) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + _MAX_ROUND_S
    while len(times) < _RUNS and (len(times) < _MIN_RUNS or time.perf_counter() < end):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return times
