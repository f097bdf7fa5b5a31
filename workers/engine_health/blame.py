"""Whose fault it was that a request broke: the engine's or its prompt's. What became of the job tells.

A job that finished on another tier, or at its second attempt, was sound: its engine was at fault. A job that broke on
other tiers as well would break any engine. Until one of these is known the fault counts against neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from bitladder.contract import JobView, State
from bitladder.errors import QueueUnreachableError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue_name import QueueName

# The ends of jobs that broke every engine they ran on.
_BROKEN_CODES = ("engine_fault", "engine_lost", "degenerate_output", "poison")


class Blame(StrEnum):
    """Whose fault it was."""

    ENGINE = "engine"
    PROMPT = "prompt"
    UNCLEAR = "unclear"  # it broke again, but on this tier only
    NOBODY = "nobody"  # the job was cancelled, ran out of time, or is gone


class FaultyAttempt(msgspec.Struct, frozen=True):
    """A job that broke, and at which attempt."""

    job_id: str
    attempt: int


async def find_blame(queue: JobQueue, tier: str, attempts: Iterable[FaultyAttempt]) -> Mapping[FaultyAttempt, Blame]:
    """Return whose fault it was that jobs broke on this tier, as far as that is known by now."""
    known: dict[FaultyAttempt, Blame] = {}
    try:
        for faulty in attempts:
            if blame := _blame(await queue.view(faulty.job_id), faulty.attempt, tier):
                known[faulty] = blame
    except QueueUnreachableError:
        pass  # the next check asks again
    return known


def _blame(view: JobView | None, attempt: int, tier: str) -> Blame | None:
    if view is None:
        return Blame.NOBODY
    if not view.state.is_terminal:
        is_running = view.state is State.RUNNING
        return _of_repeated(not _waits_for(view.queue, tier)) if view.attempts > attempt + is_running else None
    if view.state is State.FINISHED:
        return Blame.ENGINE
    outcome = view.outcome
    if view.state is State.FAILED and outcome and outcome.code in _BROKEN_CODES:
        return _of_repeated(outcome.tier != tier)
    return Blame.NOBODY


def _waits_for(queue: str, tier: str) -> bool:
    try:
        return QueueName.parse(queue).tier == tier
    except ValueError:  # something else wrote into its record
        return False


def _of_repeated(is_on_other_tier: bool) -> Blame:
    return Blame.PROMPT if is_on_other_tier else Blame.UNCLEAR
