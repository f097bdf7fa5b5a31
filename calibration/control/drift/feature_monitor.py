"""Whether the prompts of a stream are still like the reference: ADWIN for each feature, PSI for each window. Pure.

The error level is one for everything: over a horizon of so many requests, *any* false alarm of any feature, window and
group has at most that chance where nothing has moved. Half of it is ADWIN's, divided by features and checks; half is
PSI's, divided by windows, its thresholds by permutation over all features at once. Then a new horizon begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from calibration.control.drift.stability_index import Bins, tail_by_permutation

Numbers = NDArray[np.float64]
_CLOCK = 32  # ADWIN looks for a change at each so manieth value
_WARM = 1000  # prompts of the reference that each ADWIN has seen before the stream begins
_PSI_SMALLEST_DRAWS = 5  # the permutations show the threshold's level at least so often


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How features are watched."""

    window: int = 500
    horizon: int = 5000  # requests over which `level` holds
    level: float = 0.005
    permutations: int = 0  # 0: as many as the level takes
    seed: int = 0

    @property
    def windows(self) -> int:
        return max(1, self.horizon // self.window)


class FeatureAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that has moved: which, by how much, when."""

    feature: str
    detector: str  # adwin, psi
    group: str
    request: int  # at which it was seen, counted from 1
    since: int  # from about which request on
    at: str  # the time that its line says, if any
    before: float  # the reference's mean
    after: float
    deviations: float  # by how many of the reference's standard deviations the mean has moved
    psi: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Reference:
    """The features of labelled prompts: a prompt in each row."""

    names: tuple[str, ...]
    table: Numbers

    @cached_property
    def bins(self) -> Bins:
        return Bins.of(self.table)

    @cached_property
    def _sorted(self) -> Numbers:
        return np.sort(self.table, axis=0)

    def ranks(self, table: Numbers) -> Numbers:
        """Return which share of the reference is below each value, half of the equal ones included: from 0 to 1."""
        ranks = np.empty(table.shape)
        for place, column in enumerate(table.T):
            known = self._sorted[:, place]
            ranks[:, place] = (np.searchsorted(known, column, "left") + np.searchsorted(known, column, "right")) / 2
        return ranks / len(self.table)

    def tail(self, plan: Plan) -> float:
        """Return what `FeatureMonitor` takes as `tail`: the same for the same reference and plan."""
        level = plan.level / 2 / plan.windows
        count = plan.permutations or int(_PSI_SMALLEST_DRAWS / level)
        return tail_by_permutation(self.table, plan.window, level, count, plan.seed)


class FeatureMonitor:
    """What has been seen of one horizon."""

    def __init__(self, reference: Reference, plan: Plan, tail: float, group: str = "all", begins_at: int = 0) -> None:
        """`begins_at`: the requests of the stream before this horizon."""
        self.reference, self.plan, self.group, self.begins_at = reference, plan, group, begins_at
        self.thresholds = reference.bins.thresholds(plan.window, tail)
        self.indices: list[Numbers] = []  # the PSI of each feature, of every window that is full
        self._rows: list[Numbers] = []
        self._ranks: list[Numbers] = []
        self._means, self._deviations = reference.table.mean(axis=0), reference.table.std(axis=0)
        checks = (plan.horizon + _WARM) / _CLOCK
        delta = plan.level / 2 / (len(reference.names) * checks)
        self._adwins = [ADWIN(delta=delta, clock=_CLOCK) for _ in reference.names]  # type: ignore[no-untyped-call]
        warm = np.random.default_rng(plan.seed).permutation(len(reference.table))[:_WARM]
        for ranks in reference.ranks(reference.table[warm]):
            self._update(ranks)

    @property
    def count(self) -> int:
        """The requests of this horizon so far."""
        return len(self._rows)

    @property
    def is_over(self) -> bool:
        return self.count >= self.plan.horizon

    def add(self, table: Numbers, times: list[str]) -> list[FeatureAlarm]:
        """Take requests in, in their order; return what alarms they raise. No more than the horizon has left."""
        alarms = []
        for ranks, row, at in zip(self.reference.ranks(table), table, times, strict=True):
            self._rows.append(row)
            self._ranks.append(ranks)
            alarms += [self._alarm(place, "adwin", self._change(place), at) for place in self._update(ranks)]
            if self.count % self.plan.window == 0:
                alarms += self._window(at)
        return alarms

    def _update(self, ranks: Numbers) -> list[int]:
        moved = []
        for place, (adwin, rank) in enumerate(zip(self._adwins, ranks, strict=True)):
            adwin.update(float(rank))  # type: ignore[no-untyped-call]
            if adwin.drift_detected:
                moved.append(place)
        return moved

    def _change(self, place: int) -> int:
        """Return since which request the feature's ranks are likeliest another mean than the reference's, one half.

        ADWIN drops as little of its window as will do, so its width does not say it.
        """
        sums = np.cumsum([ranks[place] - 0.5 for ranks in reversed(self._ranks)])
        return self.count - 1 - int(np.argmax(sums**2 / np.arange(1, self.count + 1))) if self.count else 0

    def _window(self, at: str) -> list[FeatureAlarm]:
        indices = self.reference.bins.indices(np.array(self._rows[-self.plan.window :]))
        self.indices.append(indices)
        start = self.count - self.plan.window
        moved = np.flatnonzero(indices > self.thresholds)
        return [self._alarm(int(place), "psi", start, at, float(indices[place])) for place in moved]

    def _alarm(self, place: int, detector: str, start: int, at: str, index: float | None = None) -> FeatureAlarm:
        before, after = self._means[place], np.array([row[place] for row in self._rows[start:]]).mean()
        return FeatureAlarm(
            feature=self.reference.names[place],
            detector=detector,
            group=self.group,
            request=self.begins_at + self.count,
            since=self.begins_at + start + 1,
            at=at,
            before=float(before),
            after=float(after),
            deviations=float((after - before) / self._deviations[place]),
            psi=index,
            threshold=None if index is None else float(self.thresholds[place]),
        )
