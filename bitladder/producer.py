"""For producers beside Redis: score, route and queue prompts without HTTP, and await outcomes (docs/producers.md).

with Producer(settings) as producer:
    print(producer.run({"model": "smollm2", "prompt": "Hello"}).answer)
    jobs = producer.submit_many({"model": "smollm2", "prompt": line} for line in lines)
    for index, job_id, outcome in producer.as_completed(jobs):
        ...  # an Outcome, or the error of body `index`
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Protocol, Self, TypeVar

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
    encode_body,
    id_of,
    in_place,
    outcomes_of,
    read_entry,
    read_headers,
    shared_headers,
)
from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.queue.calls.submit import by_group, read_submitted, submit_call
from bitladder.queue.checks.rights import PRODUCER
from bitladder.queue.checks.server_check import check_server_sync
from bitladder.queue.job_record import LOST, missing
from bitladder.queue.sending.blocking import BlockingScripts
from bitladder.queue.sending.bulk import BUNDLE, Bulk
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.signing import Signer
from bitladder.queue.waiting.job_watch import JobWatch
from bitladder.queue_name import Lane
from bitladder.routing.accept import Incoming, accept
from bitladder.routing.body import endpoint_for
from bitladder.settings.sections import Settings

__all__ = ["BUNDLE", "Answer", "Producer"]

# What becomes of one body of many: its job id, or why it was refused.
Answer = str | BitladderError


class _Connected(Protocol):
    def close(self) -> None: ...


Connected = TypeVar("Connected", bound=_Connected)


class Producer:
    """Queues jobs and awaits them, blocking; for one thread. Calls may be made while an iterator is open."""

    def __init__(self, settings: Settings) -> None:
        """Look at Redis once; one that does not answer is left to the calls.

        Raises:
            ConfigError: it can never serve.

        """
        self._settings = settings
        self._signer = Signer(settings.queue.secrets)
        with contextlib.suppress(QueueUnreachableError), contextlib.closing(connect_sync(settings.redis)) as client:
            check_server_sync(client, settings.redis, PRODUCER)
        # Connections that no call uses: one of each kind, unless calls are nested.
        self._scripts: list[BlockingScripts] = []
        self._watches: list[JobWatch] = []
        self._is_closed = False

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
        return self._submit(_reader(self._settings, lane, read_headers(headers))(body))

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
        job = _reader(self._settings, lane, read_headers(headers))(body)
        with self._lent(self._watches, JobWatch) as watch:
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
        with self._lent(self._watches, JobWatch) as watch:
            outcome = watch.read(job_id)
        return _checked(self._told_apart(job_id, outcome)) if outcome else None

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

    def close(self) -> None:
        self._is_closed = True
        idle: list[_Connected] = [*self._scripts, *self._watches]
        for connected in idle:
            connected.close()

    def _submit_each(
        self, bodies: Iterable[Body | Entry], lane: Lane | None, shared: dict[str, str]
    ) -> Generator[Answer]:
        with self._lent(self._scripts, BlockingScripts) as scripts:
            yield from Bulk(self._settings, self._signer).submit(scripts, bodies, _reader(self._settings, lane, shared))

    def _as_completed(self, ids: Iterable[Answer], timeout_s: float | None) -> Generator[Completed[Outcome]]:
        numbered: Iterator[Numbered[str]] = ((index, id_of(job_id)) for index, job_id in enumerate(ids))
        with self._lent(self._watches, JobWatch) as watch:
            for index, job_id, outcome in watch.ends(
                numbered, _seconds(timeout_s), is_bounded=isinstance(ids, Collection)
            ):
                ended = self._told_apart(job_id, outcome)
                yield Completed(index, job_id, in_place(ended, index) if isinstance(ended, BitladderError) else ended)

    def _told_apart(self, job_id: str, outcome: Outcome | BitladderError) -> Outcome | BitladderError:
        return missing(job_id, self._settings.queue.result_ttl_s) if outcome is LOST else outcome

    def _submit(self, job: Submission) -> str:
        ((group, placed),) = by_group(self._settings, [(0, job)]).items()
        with self._lent(self._scripts, BlockingScripts) as scripts:
            rows = scripts.call(submit_call(self._settings, self._signer, group, [job for _, job in placed]))
        return _checked(read_submitted(rows if isinstance(rows, Exception) else rows[0], job))

    @contextlib.contextmanager
    def _lent(self, idle: list[Connected], connect: Callable[[Settings], Connected]) -> Iterator[Connected]:
        """Use an idle connection, or a new one where an open iterator has the other."""
        connected = idle.pop() if idle else connect(self._settings)
        try:
            yield connected
        finally:
            idle.append(connected)
            if self._is_closed:
                connected.close()


def _reader(settings: Settings, lane: Lane | None, shared: dict[str, str]) -> Callable[[Body | Entry], Submission]:
    """Return what makes a submission of a body: once per call, as bodies may be many."""

    def read(item: Body | Entry) -> Submission:
        body, headers = read_entry(item, shared) if isinstance(item, Entry) else (item, shared)
        raw = encode_body(body)
        incoming = Incoming(endpoint=endpoint_for(body), body=raw, headers=headers, request_id="", lane=lane)
        return accept(incoming, settings).submission

    return read


def _checked(result: Result | BitladderError) -> Result:
    if isinstance(result, BitladderError):
        raise result
    return result


def _seconds(timeout_s: float | None) -> float:
    return math.inf if timeout_s is None else timeout_s
