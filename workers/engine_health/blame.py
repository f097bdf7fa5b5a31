"""Whose fault it was that a request broke: the engine's, or its prompt's. What became of the job tells.

A job that finished elsewhere, or at its second try, was sound, so the engine was not. One that broke on other tiers as
well would break any engine. Until that is known nobody is blamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from bitladder.contract import JobView, QueueName, State
from bitladder.errors import QueueUnreachableError
from bitladder.queue.job_queue import JobQueue

# The ends of jobs that broke every engine they came to.
_PROMPTS_CODES = ("engine_fault", "engine_lost", "degenerate_output", "poison")


class Blame(StrEnum):
    """Whose fault it was."""

    ENGINE = "engine"
    PROMPT = "prompt"
    UNCLEAR = "unclear"  # it broke again, but on this tier only
    NOBODY = "nobody"  # the job was cancelled, ran out of time, or is gone


class Suspect(msgspec.Struct, frozen=True):
    """A job that broke, and at which attempt."""

    job_id: str
    attempt: int


async def blamed(queue: JobQueue, tier: str, suspects: Iterable[Suspect]) -> Mapping[Suspect, Blame]:
    """Return whose fault it was that jobs broke on this tier, where that can be told by now."""
    found: dict[Suspect, Blame] = {}
    try:
        for suspect in suspects:
            if blame := _blame(await queue.view(suspect.job_id), suspect.attempt, tier):
                found[suspect] = blame
    except QueueUnreachableError:
        pass  # the next look may find it
    return found


def _blame(view: JobView | None, attempt: int, tier: str) -> Blame | None:
    if view is None:
        return Blame.NOBODY
    if not view.state.is_terminal:
        is_running = view.state is State.RUNNING
        return _again(not _waits_for(view.queue, tier)) if view.attempts > attempt + is_running else None
    if view.state is State.FINISHED:
        return Blame.ENGINE
    outcome = view.outcome
    if view.state is State.FAILED and outcome and outcome.code in _PROMPTS_CODES:
        return _again(outcome.tier != tier)
    return Blame.NOBODY


def _waits_for(queue: str, tier: str) -> bool:
    try:
        return QueueName.parse(queue).tier == tier
    except ValueError:  # somebody else wrote into its record
        return False


def _again(is_elsewhere: bool) -> Blame:
    return Blame.PROMPT if is_elsewhere else Blame.UNCLEAR
