"""Whose fault it was that a request broke: the engine's, or its prompt's. What became of the job tells.

A job that finished elsewhere, or at its second try, was sound, so the engine was not. One that broke again, and one
that failed after all its attempts, would break any engine. Until that is known nobody is blamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from dispatcher.contract import JobView, State
from dispatcher.errors import QueueUnreachableError
from dispatcher.queue.job_queue import JobQueue

# The ends of jobs that broke every engine they came to.
_PROMPTS_CODES = ("engine_fault", "engine_lost", "degenerate_output", "poison")


class Blame(StrEnum):
    """Whose fault it was."""

    ENGINE = "engine"
    PROMPT = "prompt"
    NOBODY = "nobody"  # the job was cancelled, ran out of time, or is gone


class Suspect(msgspec.Struct, frozen=True):
    """A job that broke, and at which attempt."""

    job_id: str
    attempt: int


async def blamed(queue: JobQueue, suspects: Iterable[Suspect]) -> Mapping[Suspect, Blame]:
    """Return whose fault it was, where that can be told by now."""
    found: dict[Suspect, Blame] = {}
    try:
        for suspect in suspects:
            if blame := _blame(await queue.view(suspect.job_id), suspect.attempt):
                found[suspect] = blame
    except QueueUnreachableError:
        pass  # the next look may find it
    return found


def _blame(view: JobView | None, attempt: int) -> Blame | None:
    if view is None:
        return Blame.NOBODY
    if view.state is State.QUEUED:
        return Blame.PROMPT if view.attempts > attempt else None
    if view.state is State.RUNNING:
        return Blame.PROMPT if view.attempts > attempt + 1 else None
    if view.state is State.FINISHED:
        return Blame.ENGINE
    code = view.outcome.code if view.outcome else None
    return Blame.PROMPT if view.state is State.FAILED and code in _PROMPTS_CODES else Blame.NOBODY
