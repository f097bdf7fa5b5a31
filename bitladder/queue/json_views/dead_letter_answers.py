"""What is asked and ordered about dead letters, and the answers: the same over HTTP and from the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Literal

import msgspec

from bitladder.ids import readable
from bitladder.queue.calls.steering import Note
from bitladder.queue.dead_letters import Choice, DeadLetters, choose, only
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.dead_letter import (
    DeadLetterEntry,
    DeadLetterWithHistory,
    count_by_code,
    describe_dead_letter,
    describe_history,
)
from bitladder.queue.json_views.kinds import Count
from bitladder.queue.json_views.steering.audit_log import noted
from bitladder.queue.json_views.steering.pausing import Reason

# The age of a job is at most this: thirty years.
MAX_AGE_S = 1e9
# Of the ids of an order, the audit log keeps so many.
_MAX_NOTED_IDS = 10

Counts = dict[str, Annotated[int, msgspec.Meta(ge=1)]]


class DeadLetterSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters a release or a drop acts on."""

    ids: list[str] | None = None
    code: str | None = None
    queue: str | None = None
    older_than_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE_S)] | None = None
    all: bool = False  # without it, a body that names no jobs is refused
    dry_run: Annotated[bool, msgspec.Meta(description="Only count.")] = False
    reason: Reason = ""

    def choice(self) -> Choice:
        return choose(ids=self.ids, code=self.code, queue=self.queue, older_than_s=self.older_than_s)


class DeadLetterList(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters, and how many there are with each error code."""

    object: Literal["list"] = "list"
    total: Count
    by_code: Counts
    data: list[DeadLetterEntry]


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    dry_run: bool
    chosen: Count
    by_code: Counts


class Released(_Result, frozen=True, kw_only=True):
    """Which jobs were queued again."""

    released: list[str]


class Dropped(_Result, frozen=True, kw_only=True):
    """Which jobs were dropped."""

    dropped: list[str]


async def list_entries(queue: JobQueue, selection: DeadLetterSelection, limit: int | None) -> DeadLetterList:
    """List the chosen dead letters, the latest first, at most `limit` of them."""
    dead_letters = DeadLetters(queue)
    heads = await dead_letters.heads(selection.choice())
    jobs = await dead_letters.look(heads[:limit])
    entries = [describe_dead_letter(job) for job in jobs]
    return DeadLetterList(total=len(heads), by_code=count_by_code(heads), data=entries)


async def read_entry(queue: JobQueue, job_id: str) -> DeadLetterWithHistory:
    """Return one dead letter with its request and its lost executions."""
    dead_letters = DeadLetters(queue)
    job = only(await dead_letters.jobs(Choice(ids=[job_id])), job_id)
    return describe_history(job, await dead_letters.history(job_id))


async def release(queue: JobQueue, selection: DeadLetterSelection, operator: str) -> Released:
    """Queue the chosen jobs again, with all their attempts and a new deadline."""
    dead_letters = DeadLetters(queue)
    heads = await dead_letters.heads(selection.choice())
    done = await _act(queue, "release dead letters", selection, operator, partial(dead_letters.release, heads))
    released = [readable(job_id) for job_id in done]
    return Released(dry_run=selection.dry_run, chosen=len(heads), by_code=count_by_code(heads), released=released)


async def _act(
    queue: JobQueue, word: str, selection: DeadLetterSelection, operator: str, step: Callable[[], Awaitable[list[str]]]
) -> list[str]:
    """Carry an order out, and note it when it begins and when it ends; nothing of both for a dry run."""
    if selection.dry_run:
        return []
    criteria = msgspec.structs.replace(selection, ids=selection.ids and selection.ids[:_MAX_NOTED_IDS], reason="")
    on = msgspec.json.encode(msgspec.structs.asdict(criteria)).decode()
    entry = Note(operator=operator, what=word, on=on, reason=selection.reason)
    results: dict[str, int] = {}
    async with noted(queue, entry, results):
        done = await step()
        results["jobs"] = len(done)
    return done


async def drop(queue: JobQueue, selection: DeadLetterSelection, operator: str) -> Dropped:
    """Take the chosen jobs out for good."""
    dead_letters = DeadLetters(queue)
    heads = await dead_letters.heads(selection.choice())
    done = await _act(queue, "drop dead letters", selection, operator, partial(dead_letters.drop, heads))
    dropped = [readable(job_id) for job_id in done]
    return Dropped(dry_run=selection.dry_run, chosen=len(heads), by_code=count_by_code(heads), dropped=dropped)
