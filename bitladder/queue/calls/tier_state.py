"""The health of a tier, across its workers, and the report of one: health.lua."""

from __future__ import annotations

from typing import Any

import msgspec

from bitladder.queue.calls.worker_report import WorkerReport, encode_report
from bitladder.queue.run_script import Argument, Call
from bitladder.settings.sections import Settings


class TierState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a tier's traffic is shifted to those above it."""

    is_shifted: bool = False
    was_shifted: bool = False  # before the call
    fault_ratio: float = 0.0
    serving: tuple[str, ...] = ()  # the tiers above that have a live worker, and are not shifted themselves


def health_call(
    settings: Settings,
    model: str,
    tier: str,
    *,
    sound: int,
    faults: int,
    report: tuple[str, WorkerReport] | None = None,
) -> Call:
    """Build the call of health.lua: how many jobs were answered well, and broke by the tier's fault, since the last.

    `report`: the worker's name, and what it says of itself.
    """
    limits = settings.queue
    worker, content = report or ("", None)
    keys = [
        f"bl:health:{model}:{tier}",
        f"rq:worker:{worker}",
        *(f"bl:live:{model}:{higher}" for higher in _above(settings, model, tier)),
    ]
    times = (int(limits.shift_window_s * 1000), int(limits.shift_hold_s * 1000))
    args: list[Argument] = [sound, faults, limits.shift_fault_ratio, *times, encode_report(content) if content else ""]
    return Call("health", keys, args)


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
