"""Which jobs an order is about: chosen by a filter or by ids, counted first, and no more than were counted."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec
from msgspec import Meta
from redis.exceptions import RedisError

from bitladder.contract import State
from bitladder.errors import RequestError
from bitladder.ids import readable
from bitladder.queue.calls.steering import OrderRefusedError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.find_jobs import find_jobs
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.steering.pausing import Reason
from bitladder.queue.server.protocol import unreachable

# Jobs that one order is carried out on: the next one goes on.
MAX_JOBS = 100_000
_PAGE = 500
_TOKEN = re.compile(r"(\d{1,15})-(\d{1,9})-([0-9a-f]{16})")

Confirm = Annotated[
    str, Meta(max_length=60, description="`confirm` of the dry run: no job that came later is touched.")
]


class JobsOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs; first with `dry_run`, which counts them, and then with what that answered."""

    filter: JobFilter = JobFilter()
    ids: Annotated[list[str], Meta(max_length=1000, description="Only these.")] | None = None
    all: Annotated[bool, Meta(description="Without a filter and ids: every job.")] = False
    dry_run: Annotated[bool, Meta(description="Only count.")] = True
    confirm: Confirm | None = None
    expected: Annotated[int, Meta(ge=0, description="Instead of `confirm`: refused where more match.")] | None = None
    reason: Reason = ""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of an order, the latest first."""

    jobs: list[FoundJob]
    has_more: bool
    confirm: str


async def choose(queue: JobQueue, word: str, order: JobsOrder, states: tuple[State, ...]) -> Chosen:
    """Find the jobs of an order that are in one of these states.

    Raises:
        RequestError: it names no jobs, or jobs that it cannot be about; or it is none of a dry run, and says no count.
        OrderRefusedError: more jobs match than were counted.

    """
    selection = _selection(queue, order, word, states)
    digest = hashlib.blake2b(msgspec.json.encode((word, selection, order.ids)), digest_size=8).hexdigest()
    as_of_ms, counted = await _counted_before(queue, order, digest)
    ids = None if order.ids is None else set(order.ids)
    older_ms = None if selection.older_than is None else as_of_ms - selection.older_than * 1000
    jobs: list[FoundJob] = []
    async for page in find_jobs(queue, selection, limit=_PAGE):
        jobs += [
            job
            for job in page.jobs
            if (job.created_ms or 0) <= as_of_ms
            and (older_ms is None or job.since_ms < older_ms)
            and (ids is None or job.job_id in ids or readable(job.job_id) in ids)
        ]
        if len(jobs) > MAX_JOBS:
            break
    if counted is not None and len(jobs) > counted and not order.dry_run:
        raise OrderRefusedError(
            f"{len(jobs)} jobs match now, and {counted} were counted: count again (dry_run)", param="confirm"
        )
    first, has_more = jobs[:MAX_JOBS], len(jobs) > MAX_JOBS
    return Chosen(jobs=first, has_more=has_more, confirm=f"{as_of_ms}-{len(first) + has_more}-{digest}")


def _selection(queue: JobQueue, order: JobsOrder, word: str, states: tuple[State, ...]) -> JobFilter:
    named = order.filter.checked(queue.settings)
    if named.is_empty and order.ids is None and not order.all:
        raise RequestError(f'{word}: name jobs by filter or ids, or say "all": true', param="filter")
    if other := set(named.state) - set(states):
        words = " or ".join(states)
        raise RequestError(f"{word} is about jobs that are {words}, not {', '.join(sorted(other))}", param="state")
    return named if named.state else msgspec.structs.replace(named, state=states)


async def _counted_before(queue: JobQueue, order: JobsOrder, digest: str) -> tuple[int, int | None]:
    """Return the time after which no job was there yet, and how many jobs were counted."""
    if order.confirm is None:
        if not order.dry_run and order.expected is None:
            raise RequestError(
                "count first with a dry run, and send its `confirm`; or say `expected`, the most jobs that may match",
                param="confirm",
            )
        try:
            seconds, micros = await queue.client.time()
        except (RedisError, OSError) as error:
            raise unreachable("Redis does not answer", error) from error
        return int(seconds) * 1000 + int(micros) // 1000, order.expected
    token = _TOKEN.fullmatch(order.confirm)
    if token is None or token[3] != digest:
        raise RequestError("confirm is that of another order: count this one first (dry_run)", param="confirm")
    return int(token[1]), int(token[2])
