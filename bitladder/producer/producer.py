"""The producer: every call of a program beside Redis. Its connections are in connections.py, batches in batch.py."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import Self

import msgspec

from bitladder.contract import Outcome, Submission
from bitladder.entries import (
    Body,
    Completed,
    Entry,
    Headers,
    Numbered,
    Result,
    checked_many,
    collected,
    id_of,
    outcomes_of,
    read_headers,
    shared_headers,
)
from bitladder.errors import BitladderError
from bitladder.producer.batch import Batch
from bitladder.producer.connections import Connections, Read
from bitladder.producer.flow import await_jobs
from bitladder.queue.calls.submit import by_group, read_submitted, submit_call
from bitladder.queue.sending.bulk import Bulk
from bitladder.queue_name import Lane
from bitladder.settings.sections import Settings

# What becomes of one body of many: its job id, or why it was refused.
Answer = str | BitladderError


class Producer:
    """Queues jobs and awaits them, blocking; for one thread. Calls may be made while an iterator is open."""

    def __init__(self, settings: Settings) -> None:
        """Look at Redis once; one that does not answer is left to the calls.

        Raises:
            ConfigError: it can never serve.

        """
        self._connections = Connections(settings)
        self._settings = self._connections.settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def submit(self, body: Body | Entry, *, lane: Lane | None = None, headers: Headers | None = None) -> str:
        """Queue one body as it would come by HTTP; return its job id.

        Raises:
            AcceptanceUnknownError: Redis did not answer; its `job_id` may be accepted. With an Idempotency-Key among
                the headers, calling again is safe: the job is stored once.
            BitladderError: the job is not queued, as the body or a header is wrong, the queue is full, or Redis is
                unreachable.

        """
        return self._submit(self._connections.reader(lane, read_headers(headers))(body))

    def run(
        self,
        body: Body | Entry,
        *,
        lane: Lane | None = None,
        headers: Headers | None = None,
        timeout_s: float | None = 600,
    ) -> Outcome:
        """Queue one body and return its outcome.

        Raises:
            NotEndedError: there is none in time; the job, its `job_ids[0]`, goes on.
            BitladderError: see `submit` and `wait`.

        """
        job = self._connections.reader(lane, read_headers(headers))(body)
        with self._connections.watch() as watch:
            watch.subscribe()  # before anything is submitted: no outcome can fall between
            job_id = self._submit(msgspec.structs.replace(job, reply_to=watch.channel))
            if job_id == job.job_id:
                return watch.reply(job_id, _seconds(timeout_s))
        # The idempotency key's first job, whose outcome is published to its own submitter.
        return self.wait(job_id, timeout_s=timeout_s)

    def submit_many(
        self, bodies: Iterable[Body | Entry], *, lane: Lane | None = Lane.BATCH, headers: Headers | None = None
    ) -> list[Answer]:
        """Queue many bodies; return for each, in its place, its job id or why it was refused.

        An error has an `index` (of its body), a `status`, a `code` and a `message`. An Entry has headers or an
        idempotency key of its own.

        Raises:
            PartlySubmittedError: Redis is unreachable, or the iterable raised; `answers` are those of all bodies that
                were taken. No more are taken.
            RequestError: the headers for all bodies are wrong; nothing was sent.

        """
        return collected(self.submit_each(bodies, lane=lane, headers=headers))

    def submit_each(
        self, bodies: Iterable[Body | Entry], *, lane: Lane | None = Lane.BATCH, headers: Headers | None = None
    ) -> Iterator[Answer]:
        """Queue bodies as they come, and yield what submit_many returns: for iterables of any length.

        A bundle of bodies goes together, and at most two more are taken ahead of the answers. After the answers of all
        bodies that were taken it raises what their iterable raised, or

        Raises:
            QueueUnreachableError: Redis is unreachable.
            RequestError: the headers for all bodies are wrong; nothing was sent.

        """
        return self._submit_each(checked_many(bodies), lane, shared_headers(headers))

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how a job ended; None while it has not.

        Raises:
            GoneError: it is no longer stored; known for ids made here, which carry their time.
            NotFoundError: there is no such job; of another program's id it is not known whether there was.
            QueueUnreachableError: Redis is unreachable.

        """
        job_id = _checked(id_of(job_id))
        with self._connections.watch() as watch:
            outcome = watch.read(job_id)
        return _checked(self._connections.told_apart(job_id, outcome)) if outcome else None

    def wait(self, job_id: str, *, timeout_s: float | None = 600) -> Outcome:
        """Return the outcome when there is one; None: wait without a limit.

        Raises:
            NotEndedError: there is none in time; the job goes on.
            GoneError, NotFoundError: at once, see `outcome`.
            QueueUnreachableError: Redis is unreachable now, or was later, for half a minute.

        """
        with contextlib.closing(self._as_completed([job_id], timeout_s)) as completed:
            return _checked(next(completed).outcome)

    def as_completed(self, ids: Iterable[Answer], *, timeout_s: float | None = 600) -> Iterator[Completed[Outcome]]:
        """Yield each job when it ends: (index, job_id, outcome). `ids` may be what submit_many or submit_each returned.

        In the place of an outcome stands the error of an id: GoneError or NotFoundError at once, or the error that
        submit_many had put in its place. Of an iterator's ids at most 10,000 are waited for at a time. An error that
        the iterator raises is raised when the jobs before it have ended.

        Raises:
            NotEndedError: its `job_ids` have not ended in time. They go on.
            QueueUnreachableError: Redis is unreachable now, or was later, for half a minute.

        """
        return self._as_completed(checked_many(ids), timeout_s)

    def gather(self, ids: Iterable[Answer], *, timeout_s: float | None = 600) -> list[Outcome | BitladderError]:
        """Return the outcome of each job in its place, or its error as in `as_completed`; NotEndedError where there is
        none in time.

        Raises:
            QueueUnreachableError: Redis is unreachable, and nothing is known.

        """  # noqa: D205
        jobs = list(checked_many(ids))
        return outcomes_of(jobs, self._as_completed(jobs, timeout_s))

    def batch(
        self, requests: Iterable[Body | Entry], *, lane: Lane | None = Lane.BATCH, headers: Headers | None = None
    ) -> Batch:
        """Return a batch of these requests, whose ids are known and of which nothing is sent yet.

        Raises:
            RequestError: the headers for all requests are wrong.

        """
        return Batch.new(self._connections, checked_many(requests), self._reader_of_many(lane, headers))

    def open_batch(
        self,
        handle: str | bytes,
        requests: Iterable[Body | Entry] | None = None,
        *,
        lane: Lane | None = Lane.BATCH,
        headers: Headers | None = None,
    ) -> Batch:
        """Return the batch of a handle (`as_json`); with its requests, those that are not stored can be submitted.

        Raises:
            RequestError: this is no handle, or one of another number of requests.

        """
        return Batch.opened(self._connections, requests, self._reader_of_many(lane, headers), handle)

    def close(self) -> None:
        self._connections.close()

    def _submit_each(
        self, bodies: Iterable[Body | Entry], lane: Lane | None, shared: dict[str, str]
    ) -> Generator[Answer]:
        with self._connections.scripts() as scripts:
            read = self._connections.reader(lane, shared)
            yield from Bulk(self._settings, self._connections.signer).submit(scripts, bodies, read)

    def _as_completed(self, ids: Iterable[Answer], timeout_s: float | None) -> Generator[Completed[Outcome]]:
        numbered: Iterator[Numbered[str]] = ((index, id_of(job_id)) for index, job_id in enumerate(ids))
        yield from await_jobs(self._connections, numbered, _seconds(timeout_s), is_bounded=isinstance(ids, Collection))

    def _reader_of_many(self, lane: Lane | None, headers: Headers | None) -> Read:
        return self._connections.reader(lane, shared_headers(headers))

    def _submit(self, job: Submission) -> str:
        ((group, placed),) = by_group(self._settings, [(0, job)]).items()
        with self._connections.scripts() as scripts:
            rows = scripts.call(
                submit_call(self._settings, self._connections.signer, group, [job for _, job in placed])
            )
        return _checked(read_submitted(rows if isinstance(rows, Exception) else rows[0], job))


def _checked(result: Result | BitladderError) -> Result:
    if isinstance(result, BitladderError):
        raise result
    return result


def _seconds(timeout_s: float | None) -> float:
    return math.inf if timeout_s is None else timeout_s
