"""How long routing takes to score a prompt of 2 KB and to decide: by its own functions."""

from __future__ import annotations

import time

import numpy as np

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


def latency_us(form: LearnedForm) -> dict[str, float]:
    """Return the median and the 99th percentile, in microseconds; of three rounds the quickest: others use the machine.

    It is of requests that no tier below the top is right for: all bounds are computed.
    """
    settings = NamedPolicySettings(kind="learned", file=_NAME, form=form)
    policy = policy_of(PolicySettings(name=_NAME), {_NAME: settings})
    constraints = constraints_of(Envelope(), (*form.tiers, "the top"))
    rounds = []
    for _ in range(_ROUNDS):
        times = []
        for _ in range(_RUNS):
            started = time.perf_counter()
            policy.decide(score_prompt(_PROMPT, Endpoint.CHAT, policy.features), constraints)
            times.append(time.perf_counter() - started)
        rounds.append(times)
    p50, p99 = np.quantile(rounds, (0.5, 0.99), axis=1).min(axis=1).tolist()
    return {"p50": round(1e6 * p50, 1), "p99": round(1e6 * p99, 1)}
