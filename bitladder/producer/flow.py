"""Many jobs with ids that are known before, so many at a time: the next are submitted as earlier ones end.

What is refused for the load, or not answered, is submitted again under the same id: the queue stores an id once. So a
program that runs the same jobs again awaits those that are there, and submits the others.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

from bitladder.contract import Outcome
from bitladder.entries import Body, Completed, Entry, Numbered, OutageWait, in_place
from bitladder.errors import BitladderError, ProtocolError, QueueBrokenError, QueueUnreachableError, RefusedError
from bitladder.producer.connections import Connections, Read
from bitladder.queue.sending.bulk import BUNDLE, Bulk
from bitladder.queue.waiting.job_watch import MAX_PENDING

# Before what was refused for the load is submitted again.
_PAUSE_S = 0.5


class Task(NamedTuple):
    """One job that is to run: its place among all, its id, its body."""

    index: int  # type: ignore[assignment]  # as in Completed
    job_id: str
    body: Body | Entry


def run_tasks(
    connections: Connections, tasks: Iterable[Task], read: Read, *, max_in_flight: int, timeout_s: float
) -> Generator[Completed[Outcome]]:
    """Submit tasks and yield each when it has ended, at most `max_in_flight` of them at a time.

    Raises:
        NotEndedError: some have not ended in time; they go on.
        QueueUnreachableError: Redis is unreachable now, or was later, for half a minute.

    """
    feed = _Feed(connections, tasks, read, min(max_in_flight, MAX_PENDING))
    with contextlib.closing(feed.ids()) as ids:
        for completed in await_jobs(connections, ids, timeout_s, is_bounded=False):
            feed.in_flight -= bool(completed.job_id)
            yield completed


def await_jobs(
    connections: Connections, ids: Iterable[Numbered[str] | None], timeout_s: float, *, is_bounded: bool
) -> Generator[Completed[Outcome]]:
    """Yield each numbered job when it has ended; for the rest see JobWatch.ends."""
    with connections.watch() as watch:
        for index, job_id, outcome in watch.ends(ids, timeout_s, is_bounded=is_bounded):
            ended = connections.told_apart(job_id, outcome)
            yield Completed(index, job_id, in_place(ended, index) if isinstance(ended, BitladderError) else ended)


def is_for_now(answer: str | BitladderError) -> bool:
    """Return whether the same submission may be accepted later: the load is too high, or Redis did not answer."""
    if isinstance(answer, QueueBrokenError | ProtocolError):  # these stay until somebody mends them
        return False
    return isinstance(answer, RefusedError | QueueUnreachableError)


class _Feed:
    """Submits tasks where there is room, and yields their ids."""

    def __init__(self, connections: Connections, tasks: Iterable[Task], read: Read, max_in_flight: int) -> None:
        self._connections, self._read = connections, read
        self._tasks, self._again = iter(tasks), deque[Task]()
        self._max, self._step = max_in_flight, min(BUNDLE, -(-max_in_flight // 4))
        self.in_flight = 0
        self._unanswered = deque[Task]()
        self._until_s, self._in_flight_then = 0.0, 0  # after a refusal: when to try again, and what was in flight
        self._is_refused = False
        self._is_exhausted = False
        self._outage_wait = OutageWait()

    def ids(self) -> Generator[Numbered[str] | None]:
        """Yield each task's id, or why it was refused; None: no room now.

        Raises:
            QueueUnreachableError: Redis is unreachable now, or was later, for half a minute.

        """
        while self._again or not self._is_exhausted:
            if self._has_room():
                yield from self._submit(self._max - self.in_flight)
                continue
            if not self.in_flight:  # nothing of ours will end meanwhile
                time.sleep(max(0.0, self._until_s - time.monotonic()))
            yield None

    def _has_room(self) -> bool:
        """Return whether to submit now: not soon after a refusal, unless half of what was in flight then has ended."""
        if time.monotonic() < self._until_s and 2 * self.in_flight >= self._in_flight_then:
            return False
        return self._max - self.in_flight >= self._step

    def _submit(self, room: int) -> Iterator[Numbered[str]]:
        bulk, self._is_refused = Bulk(self._connections.settings, self._connections.signer), False
        with self._connections.scripts() as scripts:
            answers = bulk.submit(scripts, self._taken(room), lambda task: self._read(task.body, task.job_id))
            try:
                for answer in answers:
                    task = self._unanswered.popleft()
                    if is_for_now(answer):
                        self._again.append(task)
                        self._is_refused = True
                        self._until_s, self._in_flight_then = time.monotonic() + _PAUSE_S, self.in_flight
                    else:
                        if isinstance(answer, str):
                            self.in_flight += 1
                            self._outage_wait.answered()
                        yield task.index, answer
            except QueueUnreachableError:
                if self._outage_wait.is_over():
                    raise

    def _taken(self, room: int) -> Iterator[Task]:
        """Take tasks until one is refused for the load: first those that were before."""
        for _ in range(room):
            if self._is_refused:
                return
            task = self._again.popleft() if self._again else next(self._tasks, None)
            if task is None:
                self._is_exhausted = True
                return
            self._unanswered.append(task)
            yield task
