"""How fast the engine is with a checkpoint, how much memory it holds, and what that costs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from calibration.artifacts.evaluation_report import Estimate
from calibration.artifacts.hardware import speed_of_another
from calibration.artifacts.metrics import recovery
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import AT_ONCE, Asker
from calibration.evaluate.engine_memory import gpu_bytes, resident_bytes
from calibration.evaluate.figures import TierFigures, bootstrap_estimate, make_estimate
from calibration.evaluate.heldout import HeldoutText, by_kind
from calibration.evaluate.machine import machine
from calibration.evaluate.measures.measure import EvaluationOptions, Prepared, gather
from calibration.statistics import bootstrap_quantile
from calibration.terminal.progress import Advance

# How many rounds of AT_ONCE answers of this many tokens are timed.
_ROUNDS, _TIMED_TOKENS = 5, 32
# The prompts are the beginnings, of this many characters, of this many texts of every kind.
_TEXTS, _CHARS = 8, 400
_P50, _P99 = 0.5, 0.99


def prepare(options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
    prompts = [text[:_CHARS] for kind_texts in by_kind(texts).values() for text in kind_texts[:_TEXTS]]
    return Prepared(measures=[Pace(prompts, machine())])


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """Speed and memory as they were measured."""

    tokens_per_s: list[float]  # of each round
    ttft_s: list[float]  # of each answer
    resident_bytes: int
    gpu_bytes: int | None


@dataclass(frozen=True, slots=True)
class Pace:
    """Rounds of as many answers at once as the engine is given, each of the same number of tokens."""

    prompts: Sequence[str]
    machine: Mapping[str, str]  # results of another machine do not count: the store may be shared
    name: str = "pace"

    @property
    def inputs(self) -> dict[str, Any]:
        rounds = {"rounds": _ROUNDS, "tokens": _TIMED_TOKENS, "at_once": AT_ONCE}
        return rounds | {"prompts": list(self.prompts), "machine": dict(self.machine)}

    async def take(self, asker: Asker, advance: Advance) -> Paced:
        rates, waits_s = [], []
        await asker.time(self.prompts[0], _TIMED_TOKENS)  # the first answer after a start is slower than any other
        for number in range(_ROUNDS):
            prompts = [self.prompts[(number * AT_ONCE + index) % len(self.prompts)] for index in range(AT_ONCE)]
            started_s = time.perf_counter()
            timings = await gather([asker.time(prompt, _TIMED_TOKENS) for prompt in prompts])
            rates.append(sum(timing.tokens for timing in timings) / (time.perf_counter() - started_s))
            waits_s += [timing.ttft_s for timing in timings]
            advance(number + 1, _ROUNDS)
        resident, pids = resident_bytes(os.getpid())
        return Paced(tokens_per_s=rates, ttft_s=waits_s, resident_bytes=resident, gpu_bytes=gpu_bytes(pids))

    def encode(self, result: Paced) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> Paced:
        return msgspec.json.decode(content, type=Paced)

    def figures(self, result: Paced, reference: Paced | None, candidate: Candidate) -> TierFigures:
        """Return speed and memory; and cost, where this machine is the hardware whose price the tier has."""
        tier = candidate.tier
        price = 0.0 if speed_of_another(tier.hardware, self.machine) else tier.price_per_hour
        return pace_figures(result, reference, weight_bytes=candidate.weight_bytes, price_per_hour=price)


def pace_figures(tier: Paced, reference: Paced | None, *, weight_bytes: int, price_per_hour: float) -> TierFigures:
    """Return speed, memory and, where the hardware has a price, cost."""
    metrics = _speeds(tier) | {
        "memory_bytes.weights": _exact(weight_bytes),
        "memory_bytes.resident": _exact(tier.resident_bytes),
    }
    if tier.gpu_bytes is not None:
        metrics["memory_bytes.gpu"] = _exact(tier.gpu_bytes)
    if price_per_hour > 0:
        rate, cost = metrics["tokens_per_s"], price_per_hour / 3600 * 1e6
        metrics["cost_per_mtok"] = make_estimate(cost / rate.value, cost / rate.high, cost / rate.low, rate.n)
    if reference is None:
        return TierFigures(metrics)
    kept = {name: _ratio(name, metrics[name], speed) for name, speed in _speeds(reference).items()}
    return TierFigures(metrics, kept)


def _speeds(paced: Paced) -> dict[str, Estimate]:
    rates = np.array(paced.tokens_per_s)
    waits_ms = np.array(paced.ttft_s).reshape(len(rates), -1) * 1000
    speeds = {"tokens_per_s": bootstrap_estimate(rates[:, None], lambda total: total / len(rates), len(rates))}
    for name, quantile in (("p50", _P50), ("p99", _P99)):
        value = float(np.quantile(waits_ms, quantile))
        speeds[f"ttft_ms.{name}"] = make_estimate(value, *bootstrap_quantile(waits_ms, quantile), waits_ms.size)
    return speeds


def _ratio(name: str, tier: Estimate, reference: Estimate) -> Estimate:
    """Return the recovery of two figures that were measured apart: the interval takes the worst of both."""
    ends = [
        recovery(name, of_tier, of_reference) or 0.0
        for of_tier in (tier.low, tier.high)
        for of_reference in (reference.low, reference.high)
    ]
    value = recovery(name, tier.value, reference.value) or 0.0
    return make_estimate(value, min(ends), max(ends), min(tier.n, reference.n))


def _exact(value: float) -> Estimate:
    return make_estimate(value, value, value, 1)
