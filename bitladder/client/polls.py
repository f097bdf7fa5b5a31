"""Waiting for many jobs over HTTP: which is asked for next, for how long, and what an answer means. No I/O.

An intake answers a GET with ?wait= when the job has ended, so a few open requests at the oldest jobs hear of most ends
at once. A job that takes longer goes behind the others, so that it does not hide them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from bitladder.client.answers import TERMINAL, Job
from bitladder.entries import Completed, OutageWait, id_of, in_place, not_ended
from bitladder.errors import BitladderError

# Requests at a time: few connections.
SLOTS = 16
# Ids that are held at a time, whatever their number.
_MAX_HELD = 256
# How long one request waits: while others want its slot, and else. Who leaves early waits for open requests at most so
# long.
_CROWDED_WAIT_S, _WAIT_S = 1.0, 5.0
# What a request may take longer than it waits.
_GRACE_S = 5.0
# After an answer that says nothing about the job.
PAUSE_S = 0.5
_PASSING = (None, 429, 502, 503, 504)


class Poll(NamedTuple):
    """One request for one job."""

    index: int  # type: ignore[assignment]  # as in Completed
    job_id: str
    wait_s: float


class Polls:
    """The jobs of one call."""

    def __init__(self, timeout_s: float | None, *, is_bounded: bool) -> None:
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._end_s, self._is_bounded = time.monotonic() + self._timeout_s, is_bounded
        self._is_exhausted = False  # no ids are to come
        self._error: Exception | None = None  # that the ids raised
        self._outage_wait = OutageWait()
        self._new: deque[tuple[int, str]] = deque()
        self._asked: deque[tuple[int, str]] = deque()
        self._open: set[Poll] = set()

    @property
    def left_s(self) -> float:
        return max(0.0, self._end_s - time.monotonic())

    @property
    def has_room(self) -> bool:
        """Whether another id may be added. Ids in memory are each asked for once, however short the time."""
        if self._is_exhausted:
            return False
        if self.left_s <= 0:
            return self._is_bounded and len(self._new) < SLOTS
        return len(self._new) + len(self._asked) + len(self._open) < _MAX_HELD

    @property
    def request_timeout_s(self) -> float | None:
        """How long open requests may take, however slow the intake is; None: without a limit."""
        return None if math.isinf(self._end_s) else self.left_s + _GRACE_S

    def take(self, ids: Iterator[tuple[int, object]]) -> Iterator[Completed[Job]]:
        """Take some more ids, as far as there is room; yield those that are errors already."""
        for _ in range(SLOTS):
            if not self.has_room:
                return
            try:
                taken: tuple[int, object] | Exception = next(ids)
            except Exception as error:  # its end, or whatever a program's own iterator raises
                taken = error
            if completed := self.add(taken):
                yield completed

    def add(self, taken: tuple[int, object] | Exception) -> Completed[Job] | None:
        """Take one more id with its number, or why there are no more; what is an error already is completed."""
        if isinstance(taken, Exception):
            self._is_exhausted = True
            self._error = None if isinstance(taken, StopIteration | StopAsyncIteration) else taken
            return None
        index, job_id = taken[0], id_of(taken[1])
        if isinstance(job_id, BitladderError):
            return Completed(index, "", in_place(job_id, index))
        self._new.append((index, job_id))
        return None

    def due(self) -> list[Poll]:
        """Return the requests that are to be made now."""
        polls: list[Poll] = []
        left_s = self.left_s
        while len(self._open) < SLOTS and (self._new or (self._asked and left_s > 0)):
            is_new = bool(self._new)
            index, job_id = (self._new or self._asked).popleft()
            is_crowded = len(self._new) + len(self._asked) + len(self._open) >= SLOTS
            wait_s = (0.0 if is_new else _CROWDED_WAIT_S) if is_crowded else _WAIT_S
            polls.append(Poll(index, job_id, min(left_s, wait_s)))
            self._open.add(polls[-1])
        return polls

    def answered(self, poll: Poll, answer: Job | BitladderError) -> Completed[Job] | None:
        """Take an answer; return what has completed, None where the job is asked for again.

        Raises:
            JobError: no intake answers now, or none has for half a minute.

        """
        self._open.discard(poll)
        index, job_id, _ = poll
        if isinstance(answer, BitladderError):
            if not is_passing(answer):
                return Completed(index, job_id, in_place(answer, index))
            if self._outage_wait.is_over() or self.left_s <= 0:
                raise answer
        else:
            self._outage_wait.answered()
            if answer["status"] in TERMINAL:
                return Completed(index, job_id, answer)
        self._asked.append((index, job_id))
        return None

    def close(self) -> None:
        """Say what is left: raise NotEndedError where jobs have not ended, or what the ids raised."""
        jobs = [job_id for _, job_id in (*self._new, *self._asked, *((poll.index, poll.job_id) for poll in self._open))]
        if jobs or not self._is_exhausted:
            raise not_ended(jobs, self._timeout_s)
        if self._error is not None:
            raise self._error


def is_passing(error: BitladderError) -> bool:
    """Return whether this says nothing about the job: the intake, or a proxy before it, cannot answer now."""
    return error.status in _PASSING
