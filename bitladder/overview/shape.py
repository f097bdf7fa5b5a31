"""One sample of the whole service, as GET /v1/overview, `bitladder top` and the page show it: docs/api/overview.md."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bitladder.queue.calls.worker_report import Breaker
from bitladder.queue.json_views.kinds import Count, Duration, ModelName, Timestamp
from bitladder.queue.json_views.steering.pausing import PauseEntry

# Error codes of dead letters that are counted one by one; the rest are together.
MAX_CODES = 20
# Names of API keys whose budget is used up.
MAX_KEYS = 50
_Rate = Annotated[float, Meta(ge=0)]
_Money = Annotated[float, Meta(description="In the currency of the tiers' prices.")]
_Tier = str  # of a key of an object: one of the ladder's, or a former one
_WAIT = "Until a job that comes in now is claimed; null: not known, or nothing is asked but Redis."
_TOKENS = "Written, by jobs that ended in the last 10 s."
_OVERFLOW = "By the tier that jobs came from: how many the workers here ended in the last minute."
_REPORTED = "null: no worker of the tier has said."


class Severity(StrEnum):
    """How much a note matters, the worst first."""

    CRITICAL = "critical"  # jobs wait or are lost, and nothing else takes their place
    WARNING = "warning"  # something is wrong, and jobs go on
    INFO = "info"  # somebody wanted it so


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an operator should look at."""

    severity: Severity
    text: str
    model: str | None = None
    tier: str | None = None
    runbook: Annotated[str | None, Meta(description="The page of docs/operating/alerts/ that says what to do.")] = None


class LaneOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One lane of one tier."""

    depth: Count
    in_flight: Count
    oldest_age_s: Duration | None
    expected_wait_s: Annotated[Duration | None, Meta(description=_WAIT)]
    paused: Annotated[PauseEntry | None, Meta(description="Its tier takes nothing out of it now, and why.")] = None


class TierOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One tier. Depth, ages, waits and jobs in flight are of its queues, all else of its workers."""

    tier: str
    hardware: str
    depth: Count
    in_flight: Count
    oldest_age_s: Duration | None
    expected_wait_s: Annotated[Duration | None, Meta(description=f"Of the lane normal. {_WAIT}")]
    by_lane: dict[str, LaneOverview]
    workers: Annotated[int, Meta(ge=0, description="Live: their engines answer.")]
    workers_not_ready: Annotated[int, Meta(ge=0, description="They have a lease, and claim nothing.")]
    slots: Annotated[int, Meta(ge=0, description="Jobs that its live workers may hold at once.")]
    held: Annotated[int, Meta(ge=0, description="Jobs that its workers hold, of whichever tier's queues.")]
    jobs_per_s: Annotated[float, Meta(ge=0, description="That ended in the last 10 s.")]
    tokens_per_s: Annotated[float, Meta(ge=0, description=_TOKENS)]
    overflow_in: Annotated[dict[_Tier, Count], Meta(description=_OVERFLOW)]
    leases_lost: Annotated[int, Meta(ge=0, description="Jobs of lost leases, in the last 10 minutes.")]
    price_per_hour: _Money
    cost_per_hour: Annotated[float, Meta(description="Of its workers, live or not, idle or not.")]
    shifted: Annotated[bool, Meta(description="Too many of its jobs break: higher tiers serve those that may go up.")]
    breaker: Annotated[Breaker | None, Meta(description=f"The worst of its workers'. {_REPORTED}")]
    paused: Annotated[PauseEntry | None, Meta(description="It claims nothing now, and why.")] = None


class ModelOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    model: ModelName
    tiers: Annotated[list[TierOverview], Meta(description="Lowest first.")]


class DeadLetterSums(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters, counted."""

    total: Count
    added: Annotated[int, Meta(ge=0, description="In the last 10 minutes.")]
    by_error: Annotated[dict[str, Count], Meta(description=f"Of the latest; those beyond {MAX_CODES} codes as others.")]
    counted: Annotated[int, Meta(ge=0, description="So many of the latest are counted in by_error.")]


class RedisOverview(msgspec.Struct, frozen=True, kw_only=True):
    """The server."""

    version: str
    used_bytes: Count
    max_bytes: Annotated[int | None, Meta(description="null: it may take what the machine has.")]
    memory_share: Annotated[_Rate | None, Meta(description="null: there is no limit.")]


class DayCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What the service has cost today (UTC)."""

    requests: Count
    tokens: Count
    attributed: _Money
    rent: Annotated[float, Meta(description="What the workers' time has cost, idle or not.")]
    all_on_top_tier: Annotated[float | None, Meta(description="null: not measured.")]
    budgets_used_up: Annotated[list[str], Meta(max_length=MAX_KEYS, description="API keys, by name.")]


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of the whole service."""

    object: Literal["overview"] = "overview"
    at: Timestamp
    suspended: Annotated[bool, Meta(description="All claims pause.")]
    pauses: Annotated[list[PauseEntry], Meta(description="All that is paused.")] = []
    models: list[ModelOverview]
    dead_letters: DeadLetterSums
    redis: RedisOverview
    costs_today: DayCosts
    notes: Annotated[list[Note], Meta(description="What an operator should look at, the worst first.")]
