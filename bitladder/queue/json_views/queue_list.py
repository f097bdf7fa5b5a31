"""All queues as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bitladder.queue.calls.read import Depth, Depths
from bitladder.queue.claim_plan import is_served
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.kinds import Count, Duration, ModelName, TierName
from bitladder.queue.json_views.steering.pausing import PauseEntry, describe_pause
from bitladder.queue.pauses import Pause, pause_of_queue, pause_of_tier
from bitladder.queue_name import Lane, QueueName

# Queues that no tier serves: so many are listed, the deepest first.
MAX_UNKNOWN = 100


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """One queue."""

    queue: str
    lane: Lane
    depth: Count
    in_flight: Count
    oldest_age_s: Duration | None
    paused: Annotated[PauseEntry | None, Meta(description="Its tier takes nothing out of it now, and why.")] = None
    problem: Annotated[
        str | None, Meta(description="Why the queue accepts and serves no jobs: its key in Redis is no list.")
    ]


class TierQueues(msgspec.Struct, frozen=True, kw_only=True):
    """The queues of one tier, and their sums."""

    tier: TierName
    live_workers: Count
    shifted: Annotated[bool, Meta(description="Too many of its jobs break: higher tiers serve those that may go up.")]
    paused: Annotated[PauseEntry | None, Meta(description="It claims nothing now, and why.")] = None
    depth: Count
    in_flight: Count
    oldest_age_s: Duration | None
    queues: list[QueueDepth]


class ModelQueues(msgspec.Struct, frozen=True, kw_only=True):
    """The queues of one model."""

    model: ModelName
    tiers: list[TierQueues]


class UnknownQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue of RQ's that no tier serves."""

    queue: str
    depth: Count
    workers: Annotated[int, Meta(ge=0, description="RQ's own workers, and those of tiers that no longer exist.")]


class QueueList(msgspec.Struct, frozen=True, kw_only=True):
    """All queues: those that tiers serve, by model, and RQ's others."""

    object: Literal["list"] = "list"
    suspended: Annotated[bool, Meta(description="All claims pause.")]
    pauses: Annotated[list[PauseEntry], Meta(description="All that is paused.")] = []
    data: list[ModelQueues]
    unknown: Annotated[list[UnknownQueue], Meta(max_length=MAX_UNKNOWN)]
    unknown_total: Count


async def read_queues(queue: JobQueue) -> QueueList:
    """Read all queues."""
    overview, models = await queue.overview(), queue.settings.models
    depths = {name: await queue.depths(name) for name in models}
    shown = {depth.queue for seen in depths.values() for depth in seen.queues}
    unknown = [
        other
        for other in overview.unknown
        # An empty list of single tiers is one that is not in use now.
        if other.queue not in shown and (other.depth or not is_served(queue.settings, other.queue))
    ]
    return QueueList(
        suspended=overview.is_suspended,
        pauses=[entry for pause in overview.pauses if (entry := describe_pause(pause))],
        data=[_describe_model(name, seen, overview.pauses) for name, seen in depths.items()],
        unknown=[UnknownQueue(**asdict(other)) for other in unknown[:MAX_UNKNOWN]],
        unknown_total=len(unknown),
    )


def _describe_model(model: str, depths: Depths, pauses: Sequence[Pause]) -> ModelQueues:
    tiers = []
    for tier, live in depths.live.items():
        queues = [
            _describe_queue(depth, pauses) for depth in depths.queues if QueueName.parse(depth.queue).tier == tier
        ]
        ages = [queue.oldest_age_s for queue in queues if queue.oldest_age_s is not None]
        tiers.append(
            TierQueues(
                tier=tier,
                live_workers=live,
                shifted=tier in depths.shifted,
                paused=describe_pause(pause_of_tier(pauses, model, tier)),
                depth=sum(queue.depth for queue in queues),
                in_flight=sum(queue.in_flight for queue in queues),
                oldest_age_s=max(ages, default=None),
                queues=queues,
            )
        )
    return ModelQueues(model=model, tiers=tiers)


def _describe_queue(depth: Depth, pauses: Sequence[Pause]) -> QueueDepth:
    return QueueDepth(
        queue=depth.queue,
        lane=Lane(QueueName.parse(depth.queue).lane),
        depth=depth.depth,
        in_flight=depth.in_flight,
        oldest_age_s=depth.oldest_age_s,
        paused=describe_pause(pause_of_queue(pauses, depth.queue)),
        problem=depth.problem or None,
    )
