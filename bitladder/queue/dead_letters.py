"""The dead letters: jobs that failed because of a defect, theirs or ours, kept for an operator to look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from redis.exceptions import NoPermissionError, RedisError

from bitladder.contract import JobView, Outcome
from bitladder.errors import NotFoundError
from bitladder.ids import read_id, readable
from bitladder.queue.calls.read import heads_call, read_heads, records_call
from bitladder.queue.calls.upkeep import DEAD_LETTERS, drop_call, read_moved, release_call
from bitladder.queue.claim_plan import is_served
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.job_record import VIEWED, is_odd_type, odd_view, read_end, read_view
from bitladder.queue.run_script import Call
from bitladder.queue.sending.budget import MAX_BYTES
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.untrusted import MAX_QUEUE_CHARS, read_number, short
from bitladder.queue_name import QueueName
from bitladder.settings.sections import Settings

T = TypeVar("T")
# Ids per script call.
BUNDLE = 500


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a job that failed or was lost."""

    at_ms: int
    worker: str
    fence: int
    outcome: Outcome | None  # None: it cannot be read


class DeadLetterHead(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a dead letter by which it can be chosen."""

    at_ms: int  # when it became a dead letter
    job_id: str
    queue: str  # '': its record is gone
    code: str  # of the error it ended with


class DeadLetter(DeadLetterHead, frozen=True, kw_only=True):
    """A job among the dead letters."""

    view: JobView | None  # None: its record is gone


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; None: any."""

    ids: Sequence[str] | None = None
    code: str | None = None
    queue: str | None = None  # beginning of its queue's name: a model, model:tier, model:tier:lane
    before_ms: int | None = None  # it became one earlier

    def takes(self, job: DeadLetterHead) -> bool:
        return (
            (self.ids is None or job.job_id in self.ids or readable(job.job_id) in self.ids)
            and (self.code is None or job.code == self.code)
            and (self.queue is None or QueueName.begins(job.queue, self.queue))
            and (self.before_ms is None or job.at_ms < self.before_ms)
        )


class DeadLetters:
    """Reads dead letters, releases them into their queues, or drops them for good."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def count(self) -> int:
        """Return how many there are.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        try:
            count: Any = await self._queue.client.zcard(DEAD_LETTERS)
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        return int(count)

    async def jobs(self, choice: Choice = Choice()) -> list[DeadLetter]:  # noqa: B008  (it is frozen)
        """Return the chosen dead letters, the latest first."""
        return await self.look(await self.heads(choice))

    async def heads(self, choice: Choice = Choice()) -> list[DeadLetterHead]:  # noqa: B008
        """Return the heads of the chosen dead letters, the latest first: there may be very many.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        heads = await self._heads(await self._times(choice.ids or ()))
        return [head for head in heads if choice.takes(head)]

    async def latest(self, count: int) -> list[DeadLetterHead]:
        """Return the heads of the latest dead letters.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        return await self._heads(await self._times((), count - 1))

    async def _heads(self, times: Mapping[str, int]) -> list[DeadLetterHead]:
        heads: list[DeadLetterHead] = []
        ids = list(times)
        while left := ids[len(heads) :]:
            rows = read_heads(await self._queue.run(heads_call(left[:BUNDLE], MAX_BYTES)))
            heads += [self._head(times[job_id], job_id, *row) for job_id, row in zip(left, rows, strict=False)]
        return heads

    async def look(self, heads: Sequence[DeadLetterHead]) -> list[DeadLetter]:
        """Return the dead letters with these heads.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        views: list[JobView | None] = []
        while left := heads[len(views) :]:
            views += await self._views([head.job_id for head in left[:BUNDLE]])
        return [DeadLetter(**msgspec.structs.asdict(head), view=view) for head, view in zip(heads, views, strict=True)]

    async def _times(self, ids: Sequence[str], last: int = -1) -> dict[str, int]:
        """Return when each job became a dead letter, the latest first; of `ids` alone if all of them did.

        `last`: place of the last one that is read; -1: all.
        """
        try:
            scores = await self._scores(ids)
            if None not in scores:
                return {job_id: read_number(score) or 0 for job_id, score in zip(ids, scores, strict=True)}
            rows: Any = await self._queue.client.zrevrange(DEAD_LETTERS, 0, last, withscores=True)
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        return {read_id(job_id): read_number(score) or 0 for job_id, score in rows}

    async def _scores(self, ids: Sequence[str]) -> list[float | None]:
        if not ids:
            return [None]
        try:
            scores: Any = await self._queue.client.zmscore(DEAD_LETTERS, list(ids))
        except NoPermissionError:  # an ACL of an earlier version
            return [None]
        return list(scores)

    def _head(self, at_ms: int, job_id: str, word: bytes, queue: bytes, stored: bytes) -> DeadLetterHead:
        status = word.decode(errors="replace")
        outcome = None if status == "gone" else read_end(job_id, status, stored, self._queue.signer)
        if status == "odd":
            outcome = odd_view(job_id).outcome
        code = (outcome.code if outcome else None) or "no_record"
        return DeadLetterHead(
            at_ms=at_ms, job_id=job_id, queue=short(queue.decode(errors="replace"), MAX_QUEUE_CHARS), code=code
        )

    async def history(self, job_id: str) -> list[Loss]:
        """Return the executions that a job lost before its end, the first one first."""
        try:
            raw: Any = await self._queue.client.hget(f"rq:job:{job_id}", "history")
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        lines = (line.split(b" ", 3) for line in (raw or b"").splitlines())
        return [self._loss(job_id, *line) for line in lines if len(line) == 4]

    async def release(self, jobs: Iterable[DeadLetterHead]) -> list[str]:
        """Queue jobs again, with all their attempts and a new deadline; return the ids of those that wait now.

        A job whose queue the configuration no longer knows stays: no worker would claim it.
        """
        settings = self._queue.settings
        return await self._each(release_call, [job.job_id for job in jobs if is_served(settings, job.queue or "")])

    async def drop(self, jobs: Iterable[DeadLetterHead]) -> list[str]:
        """Remove dead letters for good; return their ids."""
        return await self._each(drop_call, [job.job_id for job in jobs])

    async def _each(self, build: Callable[[Settings, Sequence[str]], Call], ids: list[str]) -> list[str]:
        moved: list[str] = []
        for bundle in _bundles(ids):
            moved += read_moved(await self._queue.run(build(self._queue.settings, bundle)), bundle)
        return moved

    async def _views(self, ids: Sequence[str]) -> list[JobView | None]:
        """Read the first records, as many as one answer has room for."""
        rows = await self._queue.run(records_call(ids, VIEWED, MAX_BYTES))
        return [self._view(job_id, row) for job_id, row in zip(ids, rows, strict=False)]

    def _view(self, job_id: str, row: Any) -> JobView | None:  # noqa: ANN401  (values, or an error)
        if is_odd_type(row):
            return odd_view(job_id)
        if isinstance(row, Exception) or row[0] is None:
            return None
        return read_view(job_id, dict(zip(VIEWED, row, strict=True)), None, self._queue.signer)

    def _loss(self, job_id: str, at: bytes, worker: bytes, fence: bytes, outcome: bytes) -> Loss:
        return Loss(
            at_ms=read_number(at) or 0,
            worker=short(worker.decode(errors="replace")),
            fence=read_number(fence) or 0,
            outcome=self._queue.signer.decode(job_id, outcome),
        )


def choose(
    *,
    ids: list[str] | None = None,
    code: str | None = None,
    queue: str | None = None,
    older_than_s: float | None = None,
) -> Choice:
    """Return a choice of dead letters by their age instead of their time."""
    before_ms = None if older_than_s is None else int((time.time() - older_than_s) * 1000)
    return Choice(ids=ids, code=code, queue=queue, before_ms=before_ms)


def _bundles(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + BUNDLE] for start in range(0, len(items), BUNDLE))


def only(jobs: Sequence[DeadLetter], job_id: str) -> DeadLetter:
    """Return the only dead letter, which was chosen by its id.

    Raises:
        NotFoundError: it is not among the dead letters.

    """
    if not jobs:
        raise NotFoundError(f"there is no job {readable(job_id)!r} among the dead letters", param="id")
    return jobs[0]
