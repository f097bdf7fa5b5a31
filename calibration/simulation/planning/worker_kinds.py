"""What one worker can take: for each option and number of slots, how long each size of request holds a slot. Pure.

A request of I tokens in and O out in a worker with all c slots in use holds its slot for
ttft(c) * I / input_tokens + (O - 1) * time_per_token(c): what the simulated worker does at that concurrency
(calibration/simulation/event_loop.py). A worker may be run at fewer slots than it could, so that long prompts get their
first token in time; each such number is a kind of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.simulation.fleet_file import ModelShape, fit
from calibration.simulation.outcome import Targets
from calibration.simulation.planning.offers_file import Option
from calibration.simulation.planning.size_buckets import Bucket
from calibration.statistics import Floats

_MAX_SLOTS = 4096
_MAX_LEVELS = 4  # numbers of slots for one option


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKind:
    """An option at a number of slots."""

    option: Option
    slots: int
    kv_tokens: float  # that fit beside the weights
    seconds: Floats  # by bucket: how long a request holds a slot
    keeps: NDArray[np.bool_]  # by bucket: whether every request of it is within the targets, and fits

    @property
    def name(self) -> str:
        return f"{self.option.name}-{self.slots}"


@dataclass(frozen=True, slots=True)
class Times:
    """What the longest requests of a bucket get from a worker."""

    ttft_s: float
    per_token_s: float
    total_s: float

    def within(self, targets: Targets) -> bool:
        pairs = (
            (self.ttft_s, targets.ttft_s),
            (self.per_token_s, targets.per_token_s),
            (self.total_s, targets.total_s),
        )
        return all(limit is None or value <= limit * (1 + 1e-9) for value, limit in pairs)


def kv_tokens_of(option: Option, shape: ModelShape) -> float:
    """Return how many tokens' KV cache fit beside the weights; below 0: not even the weights fit."""
    fits = fit(shape, option.part, 0, 0)
    return (fits.usable_gb - fits.weights_gb) * 1e9 / shape.kv_bytes_per_token


class Speeds:
    """An option's times at every number of slots that its curve knows."""

    def __init__(self, option: Option, shape: ModelShape) -> None:
        self.option = option
        self.highest = min(_MAX_SLOTS, option.curve.max_concurrency)
        self.kv_tokens = kv_tokens_of(option, shape)
        self._per_token = 1 / np.array(option.curve.job_rates(self.highest))
        self._ttft = np.array(option.curve.first_token_s(self.highest))

    def times(self, slots: int, bucket: Bucket) -> Times:
        """Return what the longest requests of a bucket get where all slots are in use."""
        ttft_s = self._ttft_s(slots, bucket.longest_input)
        per_token_s = float(self._per_token[slots])
        return Times(ttft_s, per_token_s, ttft_s + max(0.0, bucket.longest_output - 1) * per_token_s)

    def _ttft_s(self, slots: int, tokens: float) -> float:
        per = self.option.curve.input_tokens
        return float(self._ttft[slots]) * (tokens / per if per else 1.0)

    def fits(self, bucket: Bucket) -> bool:
        return self.kv_tokens >= max(1.0, bucket.longest_input + bucket.longest_output)

    def slots_within(self, bucket: Bucket, targets: Targets) -> int:
        """Return the highest number of slots at which a bucket keeps the targets; 0: there is none."""
        low, high = 0, self.highest
        while low < high:  # times grow with the slots
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.times(middle, bucket).within(targets) else (low, middle - 1)
        return low

    def kind(self, slots: int, buckets: Sequence[Bucket], limits: Sequence[int]) -> WorkerKind:
        """Return the worker with so many slots; `limits`: the highest number by bucket that the targets allow."""
        seconds = [
            self._ttft_s(slots, bucket.input_tokens)
            + max(0.0, bucket.output_tokens - 1) * float(self._per_token[slots])
            for bucket in buckets
        ]
        # Where memory is the limit, fewer requests fill the worker: the program counts their tokens.
        keeps = [self.fits(bucket) and slots <= limit for bucket, limit in zip(buckets, limits, strict=True)]
        return WorkerKind(
            option=self.option,
            slots=slots,
            kv_tokens=self.kv_tokens,
            seconds=np.maximum(1e-9, seconds),
            keeps=np.array(keeps),
        )


def kinds_of(speeds: Speeds, buckets: Sequence[Bucket], targets: Sequence[Targets]) -> list[WorkerKind]:
    """Return an option's workers, each with a number of slots that is the highest one for some bucket."""
    limits = [speeds.slots_within(bucket, aim) for bucket, aim in zip(buckets, targets, strict=True)]
    by_memory = [int(speeds.kv_tokens / max(1.0, bucket.tokens)) if speeds.fits(bucket) else 0 for bucket in buckets]
    levels = sorted({min(pair) for pair in zip(limits, by_memory, strict=True)} - {0})
    if len(levels) > _MAX_LEVELS:
        places = np.linspace(0, len(levels) - 1, _MAX_LEVELS)
        levels = [levels[round(float(place))] for place in places]
    return [speeds.kind(slots, buckets, limits) for slots in levels]
