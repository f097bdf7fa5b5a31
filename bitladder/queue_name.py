"""The name of a queue: model, tier, lane, and which tiers may serve it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec

DEFAULT_TENANT = "default"


class Lane(StrEnum):
    """Three queues per tier, served in this order, with a guard against starvation."""

    URGENT = "urgent"
    NORMAL = "normal"
    BATCH = "batch"


class QueueName(msgspec.Struct, frozen=True, gc=False):
    """RQ's name of a queue: model:tier:lane, and :max-<ceiling> or :only-<tier>,<tier> where not all may serve.

    Jobs that not every tier above may serve wait in lists of their own, so no claim searches for them. A list of single
    tiers has a gap, or begins below the queue's tier: those serve what is full above, with its client's consent.
    No other code puts such a name together or takes it apart, but scripts/parts/tenants.lua and claiming/facts.lua.
    Where it is only passed on, it stays text. It is read from its end, because a model's name may have colons.
    """

    model: str
    tier: str  # the lowest tier that may serve its jobs without being asked
    lane: str
    ceiling: str | None = None  # the highest tier that may; None: the top of the ladder
    only: tuple[str, ...] = ()  # the tiers that may, lowest first, where they are no range that begins at `tier`

    @staticmethod
    def of(model: str, tier: str, lane: str, serving: tuple[str, ...], ladder: tuple[str, ...]) -> QueueName:
        """Return the queue whose jobs these tiers may serve: lowest first, `tier` is one of them."""
        start = ladder.index(tier)
        if serving != ladder[start : start + len(serving)]:
            return QueueName(model, tier, lane, only=serving)
        return QueueName(model, tier, lane, serving[-1] if serving[-1] != ladder[-1] else None)

    def serving(self, ladder: Sequence[str]) -> tuple[str, ...]:
        """Return the tiers that may serve its jobs, lowest first: those below `tier` only where the others are full."""
        if self.only:
            return tuple(tier for tier in ladder if tier in self.only)
        highest = ladder.index(self.ceiling) if self.ceiling in ladder else len(ladder) - 1
        return tuple(ladder[ladder.index(self.tier) : highest + 1])

    @property
    def limit(self) -> str:
        """What its name says of the tiers that may serve it: max-int8, only-int4,fp8, or nothing."""
        if self.only:
            return f"only-{','.join(self.only)}"
        return f"max-{self.ceiling}" if self.ceiling else ""

    def __str__(self) -> str:
        name, limit = f"{self.model}:{self.tier}:{self.lane}", self.limit
        return f"{name}:{limit}" if limit else name

    @staticmethod
    @lru_cache(maxsize=4096)  # parsed for every job, and few; others come from Redis, so it is bounded
    def parse(text: str) -> QueueName:
        """Take a name apart.

        Raises:
            ValueError: no queue of ours is named so.

        """
        before, _, lane = text.rpartition(":")
        ceiling: str | None = None
        only: tuple[str, ...] = ()
        if lane.startswith(("max-", "only-")):
            kind, _, tiers = lane.partition("-")
            ceiling, only = (tiers, ()) if kind == "max" else (None, tuple(tiers.split(",")))
            before, _, lane = before.rpartition(":")
        model, _, tier = before.rpartition(":")
        queue = QueueName(model, tier, lane, ceiling, only)
        if not (model and tier and lane in list(Lane)) or str(queue) != text or (only and tier not in only):
            raise ValueError(
                "a queue is named model:tier:lane, and :max-<ceiling> or :only-<tier>,<tier> behind it, "
                f"got {text[:200]!r}"
            )
        return queue

    @staticmethod
    def begins(text: str, start: str) -> bool:
        """Return whether a queue's name is `start`, or begins with it: a model, or model:tier, or model:tier:lane."""
        try:
            name = QueueName.parse(text)
        except ValueError:
            return f"{text}:".startswith(f"{start}:")
        within = f"{name.model}:{name.tier}"
        return start in (name.model, within, f"{within}:{name.lane}", text)


def list_of(queue: str, tenant: str) -> str:
    """Return the name of the list in which a tenant's jobs of a queue wait; scripts/parts/tenants.lua has the same."""
    return queue if tenant in ("", DEFAULT_TENANT) else f"{queue}:tenant-{tenant}"
