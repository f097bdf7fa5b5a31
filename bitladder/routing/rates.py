"""How fast a tier's queues are served, from readings a second or so apart: pure.

How many jobs end in a second is what a tier *can* do only while jobs wait all the time, and workers live that could
take them; otherwise it is merely how many came. So a rate is taken from stretches in which every reading found both,
and kept for a while afterwards. One exception: that nothing ends at all is known only for as long as it is so.
"""

from __future__ import annotations

from collections import deque

import msgspec

from bitladder.contract import Lane

# The rate is of the last seconds, so that it follows workers that come and go; longer where fewer jobs ended in them
# than say anything.
WINDOW_S = 5.0
MIN_SERVED = 8
ENOUGH_SERVED = 32
# Engines take batches: what ends within one generation of the batch says little about how many generations there are.
GENERATIONS = 2
# A backlog of which nothing was served for so long stands still; before, the first long jobs may just not have ended.
STANDSTILL_S = 30.0
# Readings of one stretch of backlog that are kept: two minutes.
HISTORY = 120
# So long after the last backlog its rate is still believed.
HELD_S = 60.0
# Of the jobs in flight: fewer waiting ones may be on their way to a worker that has room for them.
ON_THE_WAY = 1 / 8


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One tier at one moment. Lists are by lane, the most urgent one first."""

    at_s: float  # the server's clock
    depth: tuple[int, ...]  # jobs that wait for somebody who is alive
    in_flight: tuple[int, ...]
    served: tuple[int, ...]  # executions that ended by themselves, since any beginning
    live: int  # workers that may serve this tier's queues
    slots: int = 0  # of the tier's own workers: jobs that they may run at once

    @property
    def short(self) -> int:
        """A depth that may be no backlog."""
        return int(sum(self.in_flight) * ON_THE_WAY)

    @property
    def is_backlogged(self) -> bool:
        return sum(self.depth) > self.short

    @property
    def free(self) -> int:
        """Slots that wait for jobs. Where jobs wait, none does: whatever the number says, nobody takes them."""
        return 0 if any(self.depth) else max(0, self.slots - sum(self.in_flight))


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one tier until the next reading."""

    depth: tuple[int, ...]
    short: int  # a queue this short is never refused
    free: int  # slots that were waiting for jobs
    rate: float | None  # jobs a second that all its lanes together are served at; None: not known
    residence_s: float  # from a job's claim to its end, on average
    arrivals: tuple[float, ...]  # jobs a second
    elsewhere: tuple[float, ...]  # of these, those that others than this process let in


class TierRates:
    """Follows one tier."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._stretch: deque[Reading] = deque(maxlen=HISTORY)  # of readings with a backlog, without a gap
        self._last: Reading | None = None
        self._forget()
        self._arrivals = self._elsewhere = (0.0,) * len(Lane)

    def _forget(self) -> None:
        self._rate: float | None = None
        self._residence_s = 0.0
        self._measured: Reading | None = None
        self._stands_still = False  # the rate says only that nothing has ended for long

    def add(self, reading: Reading, admitted: tuple[int, ...]) -> Load:
        """Take the next reading; `admitted` is what this process has let in since the last one, by lane."""
        if self._last is None or sum(reading.served) < sum(self._last.served):  # the count began anew
            self._begin()
        elif reading.at_s > self._last.at_s:
            self._count_arrivals(self._last, reading, admitted)
        if self._stands_still and self._has_moved(reading):
            self._forget()
            self._stretch = deque([self._last] if self._last else [], maxlen=HISTORY)
        if reading.is_backlogged and reading.live:
            self._stretch.append(reading)
            self._measure()
        else:
            self._stretch.clear()
        self._last = reading
        return Load(
            depth=reading.depth,
            short=reading.short,
            free=reading.free,
            rate=self._rate if self._is_believed(reading) else None,
            residence_s=self._residence_s,
            arrivals=self._arrivals,
            elsewhere=self._elsewhere,
        )

    def _has_moved(self, reading: Reading) -> bool:
        """Return whether jobs have ended since, or were taken, or nobody is left whose standing still it was."""
        ended = self._measured is not None and sum(reading.served) > sum(self._measured.served)
        return ended or not reading.is_backlogged or not reading.live

    def _count_arrivals(self, before: Reading, now: Reading, admitted: tuple[int, ...]) -> None:
        span_s = now.at_s - before.at_s
        came = [max(0, there - was) for there, was in zip(_passed(now), _passed(before), strict=True)]
        self._arrivals = _smoothed(self._arrivals, [count / span_s for count in came])
        others = [max(0, count - mine) / span_s for count, mine in zip(came, admitted, strict=True)]
        self._elsewhere = _smoothed(self._elsewhere, others)

    def _measure(self) -> None:
        now = self._stretch[-1]
        least, since = max(MIN_SERVED, sum(now.in_flight)), self._since(now)
        served, span_s = sum(now.served) - sum(since.served), now.at_s - since.at_s
        if span_s > 0 and (served >= least or span_s >= STANDSTILL_S):
            # One more than ended: the next one has begun, and after a standstill there must be a way back.
            self._rate, self._measured, self._stands_still = (served + 1) / span_s, now, served == 0
            # Little's law: those in flight, each for that long, end at that rate.
            held = [sum(one.in_flight) for one in self._stretch if one.at_s >= since.at_s]
            self._residence_s = sum(held) / len(held) / self._rate

    def _since(self, now: Reading) -> Reading:
        """Return where the window begins: behind an end, or jobs that end together would be counted once too often."""
        readings, enough = list(self._stretch), max(ENOUGH_SERVED, GENERATIONS * sum(now.in_flight))
        for before, since in zip(readings[-2::-1], readings[:0:-1], strict=True):
            served = sum(now.served) - sum(since.served)
            is_enough = now.at_s - since.at_s >= WINDOW_S and served >= enough
            if is_enough and sum(since.served) > sum(before.served):
                return since
        return readings[0]

    def _is_believed(self, reading: Reading) -> bool:
        if self._measured is None or reading.live == 0 or self._measured is reading:
            return True  # with nobody alive, as fast as it was is the best that can be hoped for
        is_recent = reading.at_s - self._measured.at_s <= HELD_S
        # Without a backlog nothing shows what the workers that have come since can do.
        return is_recent and (reading.is_backlogged or reading.live <= self._measured.live)


def _passed(reading: Reading) -> list[int]:
    """Return how many jobs have ever come, by lane, but for a constant."""
    return [sum(three) for three in zip(reading.depth, reading.in_flight, reading.served, strict=True)]


def _smoothed(old: tuple[float, ...], new: list[float]) -> tuple[float, ...]:
    return tuple((one + other) / 2 for one, other in zip(old, new, strict=True))
