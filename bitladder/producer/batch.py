"""A batch: many jobs whose ids are known before they are submitted, and that another process may open again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Self

import msgspec
import uuid_utils

from bitladder.contract import Outcome
from bitladder.entries import Body, Completed, Entry, Numbered, collected, in_place, outcomes_of
from bitladder.errors import BitladderError, JobError, RequestError
from bitladder.ids import numbered_id
from bitladder.producer.connections import Connections, Read
from bitladder.producer.flow import Task, await_jobs, run_tasks
from bitladder.queue.calls.end import cancel_call, read_word
from bitladder.queue.calls.read import records_call
from bitladder.queue.job_record import state_of
from bitladder.queue.run_script import Call
from bitladder.queue.sending.bulk import Bulk
from bitladder.queue.server.protocol import unreachable

# Jobs that one call looks up, and bytes of their statuses, ten times of what they have.
_LOOKED_UP, _STATUS_BYTES = 250, 64 * 1024
# Jobs at a time of a batch that is submitted while it is awaited.
MAX_IN_FLIGHT = 4096


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one body has no job."""

    message: str
    status: int | None
    code: str | None


class _Handle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A batch as it is stored."""

    id: str
    count: int | None
    refused: dict[int, _Refusal] = {}


class Batch:
    """Jobs that were, or will be, submitted together. Made by `Producer.batch` and `Producer.open_batch`.

    The job of body 7 has the id `batch.job_id(7)`. Submitting a batch again is safe while outcomes are kept: a job that
    is stored is not queued twice.
    """

    def __init__(
        self, connections: Connections, requests: Iterable[Body | Entry] | None, read: Read, handle: _Handle
    ) -> None:
        self._connections, self._requests, self._read = connections, requests, read
        self.id, self._count = handle.id, handle.count
        self.refused: dict[int, BitladderError] = {
            index: in_place(JobError(refusal.message, refusal.status, refusal.code), index)
            for index, refusal in handle.refused.items()
        }
        self._is_submitted = False

    @classmethod
    def new(cls, connections: Connections, requests: Iterable[Body | Entry], read: Read) -> Self:
        """Return a batch of which nothing is sent."""
        count = len(requests) if isinstance(requests, Sized) else None
        return cls(connections, requests, read, _Handle(id=str(uuid_utils.uuid7()), count=count))

    @classmethod
    def opened(
        cls, connections: Connections, requests: Iterable[Body | Entry] | None, read: Read, handle: str | bytes
    ) -> Self:
        """Return the batch of a handle.

        Raises:
            RequestError: it is none, or has another number of requests.

        """
        try:
            stored = msgspec.json.decode(handle, type=_Handle)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise RequestError(f"the handle must be what Batch.as_json() has returned: {error}") from error
        if isinstance(requests, Sized) and len(requests) != stored.count:
            raise RequestError(f"the batch {stored.id} has {stored.count} requests, got {len(requests)}")
        return cls(connections, requests, read, stored)

    def __len__(self) -> int:
        """Return how many requests there are.

        Raises:
            RequestError: they come from an iterator that has not ended.

        """
        if self._count is None:
            raise RequestError("a batch of an iterator has no length before submit(): pass a list, or submit first")
        return self._count

    def job_id(self, index: int) -> str:
        """Return the id of one request's job, whether or not it was submitted."""
        return numbered_id(self.id, index)

    @property
    def job_ids(self) -> Sequence[str]:
        """The ids of all jobs, in order."""
        return [self.job_id(index) for index in range(len(self))]

    def as_json(self) -> str:
        """Return what `Producer.open_batch` opens again, in any process with the same configuration.

        Raises:
            RequestError: see `len`.

        """
        refused = {
            index: _Refusal(message=error.message, status=error.status, code=error.code)
            for index, error in self.refused.items()
        }
        return msgspec.json.encode(_Handle(id=self.id, count=len(self), refused=refused)).decode()

    def submit(self) -> int:
        """Queue all requests at once; return how many are queued. Why another is not, `refused` has by its index.

        Called again, it queues those that are not stored.

        Raises:
            PartlySubmittedError: Redis is unreachable, or the iterable raised; call it again.

        """
        if self._requests is None:
            raise RequestError("the batch was opened without its requests: pass them to open_batch")
        answers = collected(self._submitted(self._requests))
        self._count, self._is_submitted = len(answers), True
        self.refused = {index: error for index, error in enumerate(answers) if isinstance(error, BitladderError)}
        return len(answers) - len(self.refused)

    def as_completed(self, *, timeout_s: float | None = 600) -> Iterator[Completed[Outcome]]:
        """Yield each job when it ends: (index, job_id, outcome), or the error of its request.

        A batch that is not submitted is submitted as jobs end, a few thousand at a time, and waits where a queue is
        full. Errors as of `Producer.as_completed`.
        """
        count = 0
        for completed in self._ends(math.inf if timeout_s is None else timeout_s):
            count += 1
            if isinstance(completed.outcome, BitladderError) and not completed.job_id:
                self.refused[completed.index] = completed.outcome
            yield completed
        self._count = count

    def gather(self, *, timeout_s: float | None = 600) -> list[Outcome | BitladderError]:
        """Return the outcome of each job in its place, or its error; NotEndedError where there is none in time.

        Raises:
            QueueUnreachableError: Redis is unreachable, and nothing is known.

        """
        if self._requests is not None and not isinstance(self._requests, Sized):
            self._requests = list(self._requests)
            self._count = len(self._requests)
        return outcomes_of(self.job_ids, self.as_completed(timeout_s=timeout_s))

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state: queued, running, finished, failed, cancelled.

        Those that have expired count as failed; `missing` have no record: not submitted yet, or no longer stored.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        counts = Counter({"queued": 0, "running": 0, "finished": 0, "failed": 0, "cancelled": 0, "missing": 0})
        for rows in self._called(records_call(ids, ("status",), _STATUS_BYTES) for ids in self._bundles()):
            for row in rows:
                status = None if isinstance(row, Exception) else row[0]
                counts[str(state_of(status.decode(errors="replace"))) if status else "missing"] += 1
        return dict(counts)

    def cancel(self) -> int:
        """Cancel all jobs that have not ended; return how many that were. A running one ends when its worker hears it.

        Raises:
            QueueUnreachableError: Redis is unreachable, or its user may not cancel (compose/redis.acl: role producer).

        """
        settings, signer = self._connections.settings, self._connections.signer
        answers = self._called(cancel_call(settings, signer, job_id) for ids in self._bundles() for job_id in ids)
        return sum(read_word(answer) in ("cancelled", "requested") for answer in answers)

    def _submitted(self, requests: Iterable[Body | Entry]) -> Iterator[str | BitladderError]:
        bulk = Bulk(self._connections.settings, self._connections.signer)
        with self._connections.scripts() as scripts:
            yield from bulk.submit(scripts, self._tasks(requests), lambda task: self._read(task.body, task.job_id))

    def _tasks(self, requests: Iterable[Body | Entry]) -> Iterator[Task]:
        for index, item in enumerate(requests):
            yield Task(index, self.job_id(index), item)

    def _ends(self, timeout_s: float) -> Generator[Completed[Outcome]]:
        if self._requests is None or self._is_submitted:
            yield from await_jobs(self._connections, self._placed(), timeout_s, is_bounded=True)
            return
        tasks = self._tasks(self._requests)
        yield from run_tasks(self._connections, tasks, self._read, max_in_flight=MAX_IN_FLIGHT, timeout_s=timeout_s)
        self._is_submitted = True

    def _placed(self) -> Iterator[Numbered[str]]:
        return ((index, self.refused.get(index) or self.job_id(index)) for index in range(len(self)))

    def _bundles(self) -> Iterator[list[str]]:
        """Yield the ids of the jobs that there may be."""
        ids = (job_id for _, job_id in self._placed() if isinstance(job_id, str))
        while bundle := list(islice(ids, _LOOKED_UP)):
            yield bundle

    def _called(self, calls: Iterable[Call]) -> Iterator[Any]:
        with self._connections.scripts() as scripts:
            for answer in scripts.call_each(calls):
                if isinstance(answer, Exception):
                    raise unreachable("cannot look after the batch", answer) from answer
                yield answer
