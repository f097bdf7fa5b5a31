"""The simulated fleet: a heap of events on a virtual clock, and workers that claim."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Protocol

from calibration.simulation.simulated_work import End, Speed, Work, Worker


class Queue(Protocol):
    """The queues of one model: claim_rule.py, or for requests that ask for more, scripted/."""

    expired: list[int]  # jobs that were found to have expired, until the loop has noted it

    def add(self, job: int, now_s: float) -> bool: ...

    def wakes_others(self, job: int) -> bool: ...

    def finds(self, rank: int) -> bool: ...

    @property
    def is_empty(self) -> bool: ...

    def claim(self, worker: Worker, free: int, now_s: float) -> list[int]: ...

    def expire(self, job: int, now_s: float) -> None: ...

    def end(self, worker: Worker, job: int, now_s: float, *, is_served: bool) -> None: ...


class Gate(Protocol):
    """Who is let in: intake_gate.py."""

    def refuses(self, job: int, now_s: float) -> bool: ...

    def claimed(self, jobs: Sequence[int]) -> None: ...

    def ended(self, job: int, *, is_served: bool) -> None: ...

    def sample(self, now_s: float) -> float: ...

    @property
    def is_idle(self) -> bool: ...


_Event = tuple[float, int, int, "Worker | int | None"]
_SAMPLE = -1  # instead of a job whose deadline passes


class EventLoop:
    """Runs work through workers until all of it has ended."""

    def __init__(
        self,
        work: Work,
        waiting: Queue,
        speeds: Sequence[tuple[int, Speed]],
        poll_s: float,
        gate: Gate | None = None,
    ) -> None:
        """Take the number and speed of workers by rank; and how often idle ones look when nobody wakes them."""
        self._work, self._waiting, self._poll_s, self._gate = work, waiting, poll_s, gate
        self._events: list[_Event] = []
        self._sequence, self._is_polling, self._is_sampling = 0, False, False
        # Workers with a free slot: the one that has waited longest claims first.
        self._free: list[deque[Worker]] = []
        for rank, (count, speed) in enumerate(speeds):
            numbers = range(sum(map(len, self._free)), sum(map(len, self._free)) + count)
            self._free.append(deque(Worker(number, rank, speed) for number in numbers))
        self._running: dict[int, Worker] = {}  # by job: those that have a deadline
        self._left = len(work.at_s)

    def run(self, on_progress: Callable[[int], None] = lambda _: None) -> None:
        times, events = self._work.at_s, self._events
        coming, count = 0, len(times)
        while self._left:
            if coming < count and not (events and events[0][0] <= times[coming]):
                self._arrive(coming, times[coming])
                coming += 1
                if not coming % 10_000:
                    on_progress(coming)
                continue
            now_s, _, version, subject = heappop(events)
            if isinstance(subject, Worker):
                if version == subject.version:
                    self._end_next(subject, now_s)
            else:
                self._look(subject, now_s)

    def _look(self, subject: int | None, now_s: float) -> None:
        if subject is None:
            self._poll(now_s)
        elif subject != _SAMPLE:
            self._pass_deadline(subject, now_s)
        else:
            self._sample(now_s)

    def _sample(self, now_s: float) -> None:
        """Look at the queues as often as an intake does, but not while nothing is there: that may be for years."""
        if self._gate is None:
            return
        after_s = self._gate.sample(now_s)
        self._is_sampling = not (self._gate.is_idle and self._waiting.is_empty)
        if self._is_sampling:
            self._push(now_s + after_s, _SAMPLE)

    def _push(self, at_s: float, subject: Worker | int | None, version: int = 0) -> None:
        self._sequence += 1
        heappush(self._events, (at_s, self._sequence, version, subject))

    def _arrive(self, job: int, now_s: float) -> None:
        work, rank = self._work, self._work.rank[job]
        if self._is_refused(job, now_s):
            return self._note(job, End.REFUSED)
        if work.deadline_s and work.deadline_s[job]:
            self._push(now_s + work.deadline_s[job], job)
        if self._free[rank]:
            self._claim_first(rank, now_s)
        if self._waiting.wakes_others(job):
            for other in range(len(self._free)):
                if other != rank and self._waiting.finds(other):
                    self._claim_all(other, now_s)
        if not self._is_polling and not self._waiting.is_empty:
            self._is_polling = True
            self._push(now_s + self._poll_s, None)
        return None

    def _is_refused(self, job: int, now_s: float) -> bool:
        if self._gate and not self._is_sampling:
            self._sample(now_s)
        return bool(self._gate and self._gate.refuses(job, now_s)) or not self._waiting.add(job, now_s)

    def _note(self, job: int, end: End) -> None:
        self._work.ends[job] = end
        self._left -= 1

    def _claim_all(self, rank: int, now_s: float) -> None:
        while self._free[rank] and self._claim_first(rank, now_s):
            pass

    def _claim_first(self, rank: int, now_s: float) -> bool:
        """Let the tier's first worker with a free slot claim; it goes behind the others, or has none left."""
        free = self._free[rank]
        worker = free.popleft()
        has_claimed = self._claim(worker, now_s)
        if worker.jobs < worker.speed.slots:
            free.append(worker)
        return has_claimed

    def _claim(self, worker: Worker, now_s: float) -> bool:
        free = worker.speed.slots - worker.jobs
        jobs = self._waiting.claim(worker, free, now_s)
        worker.is_waiting = len(jobs) < free and not worker.speed.has_reserve
        if self._waiting.expired:
            self._note_expired(now_s)
        if jobs:
            worker.advance(now_s)
            for job in jobs:
                worker.begin(self._work, job, now_s)
            if self._work.deadline_s:
                self._running.update((job, worker) for job in jobs if self._work.deadline_s[job])
            if self._gate:
                self._gate.claimed(jobs)
            self._schedule(worker)
        return bool(jobs)

    def _note_expired(self, now_s: float) -> None:
        for job in self._waiting.expired:
            self._note(job, End.EXPIRED)
            self._work.ended_s[job] = now_s
        self._waiting.expired.clear()

    def _schedule(self, worker: Worker) -> None:
        worker.version += 1
        if worker.ends:
            left = worker.ends[0][0] - worker.progress
            at_s = worker.clock_s + max(0.0, left) / worker.speed.job_rates[worker.jobs]
            self._push(at_s, worker, worker.version)

    def _end_next(self, worker: Worker, now_s: float) -> None:
        self._leave(worker, worker.end_next(self._work, now_s), End.SERVED, now_s)

    def _leave(self, worker: Worker, job: int, end: End, now_s: float) -> None:
        """Note a job's end, and let its worker claim."""
        was_full = worker.jobs + 1 == worker.speed.slots
        self._note(job, end)
        self._waiting.end(worker, job, now_s, is_served=end is End.SERVED)
        if self._gate:
            self._gate.ended(job, is_served=end is End.SERVED)
        # A worker that waits for the next push does not look when one of its jobs ends (workers/claiming.py).
        has_claimed = not worker.is_waiting and self._waiting.finds(worker.rank) and self._claim(worker, now_s)
        is_full = worker.jobs == worker.speed.slots
        if was_full and not is_full:
            self._free[worker.rank].append(worker)
        elif is_full and not was_full:
            self._free[worker.rank].remove(worker)
        if not has_claimed:
            self._schedule(worker)

    def _pass_deadline(self, job: int, now_s: float) -> None:
        worker = self._running.pop(job, None)
        if self._work.ends[job]:
            return
        if worker is None:
            self._waiting.expire(job, now_s)
            self._note_expired(now_s)
        else:
            worker.abort(self._work, job, now_s)
            self._leave(worker, job, End.ABORTED, now_s)

    def _poll(self, now_s: float) -> None:
        for rank in range(len(self._free)):
            if self._waiting.finds(rank):
                self._claim_all(rank, now_s)
        self._is_polling = not self._waiting.is_empty
        if self._is_polling:
            self._push(now_s + self._poll_s, None)
