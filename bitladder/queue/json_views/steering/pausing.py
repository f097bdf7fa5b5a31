"""Pause and resume: a tier, a lane, a tenant, a model, or everything."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bitladder.queue.calls.steering import Note, OrderRefusedError, pause_call, resume_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.kinds import Timestamp
from bitladder.queue.pauses import MAX_PAUSES, MAX_REASON_CHARS, Pause, Target, known_scope, scope_of

# A year: a longer pause is one without an end.
MAX_FOR_S = 31_536_000

Reason = Annotated[str, Meta(max_length=MAX_REASON_CHARS, description="Why; it stands in the audit log.")]

_Redis = Annotated[str | UnsetType, Meta(description="At how many Redis, such as `1 of 2`, where not at all of them.")]


class PauseOrder(Target, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to pause: a tier, a lane, a tenant, a model, or everything."""

    reason: Reason = ""
    for_s: Annotated[float, Meta(gt=0, le=MAX_FOR_S, description="It ends by itself then.")] | None = None


class ResumeOrder(Target, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to resume."""

    reason: Reason = ""


class PauseEntry(msgspec.Struct, frozen=True, kw_only=True, rename={"operator": "by"}):
    """A pause that is in force."""

    scope: Annotated[
        str, Meta(description="all, model:<model>, tier:<model>:<tier>, lane:<model>:<lane> or tenant:<tenant>.")
    ]
    operator: Annotated[str, Meta(description="The API key's name, user@host of the command line, or `rq suspend`.")]
    reason: str
    since: Timestamp | None
    until: Annotated[float, Meta(description="Seconds since 1970; null: until it is resumed.")] | None
    redis: _Redis = UNSET


class PauseList(msgspec.Struct, frozen=True, kw_only=True):
    """All pauses that are in force, that of everything first."""

    object: Literal["list"] = "list"
    data: list[PauseEntry]


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """What was paused, and all that is paused now."""

    paused: str
    pauses: list[PauseEntry]


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """What was resumed, and all that stays paused."""

    resumed: str
    was_paused: bool
    pauses: list[PauseEntry]


def describe_pause(pause: Pause | None) -> PauseEntry | None:
    return _entry(pause) if pause else None


async def list_pauses(queue: JobQueue) -> PauseList:
    """List what is paused."""
    return PauseList(data=[_entry(pause) for pause in (await queue.overview()).pauses])


async def pause(queue: JobQueue, order: PauseOrder, operator: str) -> Paused:
    """Pause a scope.

    Raises:
        OrderRefusedError: too many are paused already.

    """
    scope = known_scope(queue.settings, scope_of(queue.settings, order))
    note = Note(operator=operator, what="pause", on=scope, reason=order.reason)
    if not await queue.run(pause_call(scope, order.for_s or 0, note)):
        raise OrderRefusedError(f"{MAX_PAUSES} scopes are paused already: resume one first, or pause a whole model")
    return Paused(paused=scope, pauses=(await list_pauses(queue)).data)


async def resume(queue: JobQueue, order: ResumeOrder, operator: str) -> Resumed:
    """Resume a scope; one that is not paused stays so."""
    scope = scope_of(queue.settings, order)
    note = Note(operator=operator, what="resume", on=scope, reason=order.reason)
    was_paused = bool(await queue.run(resume_call(queue.settings, scope, note)))
    return Resumed(resumed=scope, was_paused=was_paused, pauses=(await list_pauses(queue)).data)


def _entry(pause: Pause) -> PauseEntry:
    return PauseEntry(
        scope=pause.scope,
        operator=pause.operator,
        reason=pause.reason,
        since=pause.since_ms / 1000 if pause.since_ms else None,
        until=pause.until_ms / 1000 if pause.until_ms else None,
    )
