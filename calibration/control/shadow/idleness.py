"""Whether a tier has a slot that nobody else wants. Pure."""

from __future__ import annotations

import math
from typing import Any

import msgspec

# The lanes in which somebody waits for an answer.
_INTERACTIVE = frozenset({"urgent", "normal"})


class Queue(msgspec.Struct, frozen=True):
    """What is read of a queue, which is a moment old."""

    lane: str
    depth: int
    in_flight: int
    paused: Any = None


class Workers(msgspec.Struct, frozen=True):
    """What is read of a tier's workers, who say it once a second."""

    tier: str
    workers: int
    slots: int
    held: int
    shifted: bool = False
    breaker: str | None = None
    paused: Any = None


class TierLoad(msgspec.Struct, frozen=True):
    """A tier: its queues, and its workers."""

    queues: list[Queue]
    workers: Workers


def traffic(load: TierLoad) -> str:
    """Return why what runs already must make room: somebody waits, or the tier does not serve. '' for no reason."""
    tier = load.workers.tier
    if waiting := sum(queue.depth for queue in load.queues if queue.lane in _INTERACTIVE):
        return f"{tier}: {waiting} interactive jobs wait"
    return "" if load.workers.workers else f"{tier}: no live worker"


def obstacle(load: TierLoad, sent: int, leave_free: float) -> str:
    """Return why a tier gets no further request; '' where it has a slot to spare.

    `sent`: requests of our own that are in flight: the workers may not have said so yet. `leave_free`: the share of the
    slots that must stay free.
    """
    if busy := traffic(load):
        return busy
    workers, queues = load.workers, load.queues
    if workers.paused or workers.shifted or workers.breaker == "open" or any(queue.paused for queue in queues):
        return f"{workers.tier}: paused, or in trouble"
    if waiting := sum(queue.depth for queue in queues):
        return f"{workers.tier}: {waiting} jobs of the batch lane wait"
    held = max(workers.held, sum(queue.in_flight for queue in queues))
    free, needed = max(0, workers.slots - held - sent), 1 + math.ceil(workers.slots * leave_free)
    return "" if free >= needed else f"{workers.tier}: {free} of {workers.slots} slots free, {needed} needed"
