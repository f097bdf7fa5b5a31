"""The service rate of a tier's queues, from readings about a second apart. Pure.

Jobs served in a second are what a tier *can* serve only while jobs wait all the time and live workers could take them;
otherwise they are merely the jobs that arrived. So the rate is measured over backlogs, in which every reading found
both, and is kept for a while afterwards. A rate of nothing served is the exception: it is forgotten as soon as a job
is served or taken.
"""

from __future__ import annotations

from collections import deque

import msgspec

from bitladder.queue_name import Lane

# The rate is measured over the last seconds, so that it follows workers that come and go. The window is longer where
# too few jobs were served in it to say anything.
WINDOW_S = 5.0
_MIN_SERVED = 8
_ENOUGH_SERVED = 32
# Engines run batches, and the jobs of one batch end together: the window holds so many batches at least.
_GENERATIONS = 2
# A backlog of which nothing was served for so long stands still. Before, its first jobs may merely be long.
STANDSTILL_S = 30.0
# Readings of one backlog that are kept: two minutes.
_HISTORY = 120
# The rate of a backlog is used for so long after it.
HELD_S = 60.0
# A queue shorter than this share of the jobs in flight is no backlog: its jobs may be about to be claimed.
_ON_THE_WAY = 1 / 8


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One tier at one moment. Tuples are by lane, the most urgent one first."""

    at_s: float  # the server's clock
    depth: tuple[int, ...]  # waiting jobs that a live worker may take
    in_flight: tuple[int, ...]
    served: tuple[int, ...]  # executions that ended by themselves; a counter that may begin anew
    live: int  # workers that may serve this tier's queues
    slots: int = 0  # of the tier's own workers: jobs that they may run at once

    @property
    def short(self) -> int:
        """Up to this depth a queue is no backlog."""
        return int(sum(self.in_flight) * _ON_THE_WAY)

    @property
    def is_backlogged(self) -> bool:
        return sum(self.depth) > self.short

    @property
    def free(self) -> int:
        """Idle slots. Where jobs wait, there are none, whatever the numbers say: no worker takes those jobs."""
        return 0 if any(self.depth) else max(0, self.slots - sum(self.in_flight))


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one tier until the next reading. Tuples are by lane."""

    depth: tuple[int, ...]
    short: int  # up to this depth no job is refused
    free: int  # idle slots
    rate: float | None  # service rate of all lanes together, jobs a second; None: not known
    residence_s: float  # average time from a job's claim to its end
    arrivals: tuple[float, ...]  # jobs a second
    other_intakes: tuple[float, ...]  # jobs a second that other processes admitted


class TierRates:
    """The rates of one tier, from its readings."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._backlog: deque[Reading] = deque(maxlen=_HISTORY)  # consecutive readings with a backlog
        self._last: Reading | None = None
        self._forget_rate()
        self._arrivals = self._other_intakes = (0.0,) * len(Lane)

    def _forget_rate(self) -> None:
        self._rate: float | None = None
        self._residence_s = 0.0
        self._measured: Reading | None = None  # the last reading of the window that the rate was measured over
        self._stands_still = False  # the rate says only that nothing was served for long

    def add(self, reading: Reading, admitted: tuple[int, ...]) -> Load:
        """Take the next reading; `admitted`: jobs that this process has admitted since the last one, by lane."""
        if self._last is None or sum(reading.served) < sum(self._last.served):  # the counter began anew
            self._reset()
        elif reading.at_s > self._last.at_s:
            self._count_arrivals(self._last, reading, admitted)
        if self._stands_still and self._has_moved(reading):
            self._forget_rate()
            self._backlog = deque([self._last] if self._last else [], maxlen=_HISTORY)
        if reading.is_backlogged and reading.live:
            self._backlog.append(reading)
            self._measure()
        else:
            self._backlog.clear()
        self._last = reading
        return Load(
            depth=reading.depth,
            short=reading.short,
            free=reading.free,
            rate=self._rate if self._is_valid(reading) else None,
            residence_s=self._residence_s,
            arrivals=self._arrivals,
            other_intakes=self._other_intakes,
        )

    def _has_moved(self, reading: Reading) -> bool:
        """Return whether a standstill is over: a job was served, the backlog was taken, or its workers are gone."""
        has_served = self._measured is not None and sum(reading.served) > sum(self._measured.served)
        return has_served or not reading.is_backlogged or not reading.live

    def _count_arrivals(self, before: Reading, now: Reading, admitted: tuple[int, ...]) -> None:
        span_s = now.at_s - before.at_s
        arrived = [max(0, after - earlier) for after, earlier in zip(_total(now), _total(before), strict=True)]
        self._arrivals = _smoothed(self._arrivals, [count / span_s for count in arrived])
        others_per_s = [
            max(0, count - admitted_here) / span_s for count, admitted_here in zip(arrived, admitted, strict=True)
        ]
        self._other_intakes = _smoothed(self._other_intakes, others_per_s)

    def _measure(self) -> None:
        now = self._backlog[-1]
        minimum, since = max(_MIN_SERVED, sum(now.in_flight)), self._window_start(now)
        served, span_s = sum(now.served) - sum(since.served), now.at_s - since.at_s
        if span_s > 0 and (served >= minimum or span_s >= STANDSTILL_S):
            # One more than was served, for the job that runs: a rate of 0 would refuse every job, and never change.
            self._rate, self._measured, self._stands_still = (served + 1) / span_s, now, served == 0
            # Little's law: jobs in flight = rate x time in flight.
            in_flight = [sum(reading.in_flight) for reading in self._backlog if reading.at_s >= since.at_s]
            self._residence_s = sum(in_flight) / len(in_flight) / self._rate

    def _window_start(self, now: Reading) -> Reading:
        """Return where the window begins: right after a job was served, so that a batch's jobs are counted together."""
        readings, enough = list(self._backlog), max(_ENOUGH_SERVED, _GENERATIONS * sum(now.in_flight))
        for before, since in zip(readings[-2::-1], readings[:0:-1], strict=True):
            served = sum(now.served) - sum(since.served)
            is_enough = now.at_s - since.at_s >= WINDOW_S and served >= enough
            if is_enough and sum(since.served) > sum(before.served):
                return since
        return readings[0]

    def _is_valid(self, reading: Reading) -> bool:
        if self._measured is None or reading.live == 0 or self._measured is reading:
            return True  # without a live worker, the last rate is the best that can be expected
        is_recent = reading.at_s - self._measured.at_s <= HELD_S
        # Without a backlog nothing shows how fast workers are that were started since.
        return is_recent and (reading.is_backlogged or reading.live <= self._measured.live)


def _total(reading: Reading) -> list[int]:
    """Return the jobs that have ever arrived, by lane, up to a constant."""
    return [sum(counts) for counts in zip(reading.depth, reading.in_flight, reading.served, strict=True)]


def _smoothed(old: tuple[float, ...], new: list[float]) -> tuple[float, ...]:
    return tuple((before + after) / 2 for before, after in zip(old, new, strict=True))
