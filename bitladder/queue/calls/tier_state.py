"""The health of a tier, across its workers: health.lua."""

from __future__ import annotations

from typing import Any

import msgspec

from bitladder.queue.run_script import Call
from bitladder.settings.sections import Settings


class TierState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a tier's traffic is shifted to those above it."""

    is_shifted: bool = False
    was_shifted: bool = False  # before the call
    fault_ratio: float = 0.0
    serving: tuple[str, ...] = ()  # the tiers above that have a live worker, and are not shifted themselves


def health_call(settings: Settings, model: str, tier: str, *, sound: int, faults: int) -> Call:
    """Build the call of health.lua: how many jobs were answered well, and broke by the tier's fault, since the last."""
    limits = settings.queue
    keys = [f"bl:health:{model}:{tier}", *(f"bl:live:{model}:{higher}" for higher in _above(settings, model, tier))]
    times = (int(limits.shift_window_s * 1000), int(limits.shift_hold_s * 1000))
    return Call("health", keys, [sound, faults, limits.shift_fault_ratio, *times])


def read_health(settings: Settings, model: str, tier: str, answer: list[Any]) -> TierState:
    """Read the answer of health.lua."""
    is_shifted, was_shifted, ratio, serving = answer
    above = zip(_above(settings, model, tier), serving, strict=True)
    return TierState(
        is_shifted=bool(is_shifted),
        was_shifted=bool(was_shifted),
        fault_ratio=float(ratio),
        serving=tuple(higher for higher, serves in above if serves),
    )


def _above(settings: Settings, model: str, tier: str) -> tuple[str, ...]:
    ladder = settings.model(model).ladder
    return ladder[ladder.index(tier) + 1 :]
