"""Admission control: caps, memory, and whether the answer can come in time. Samples the queues once a second.

A decision costs no round trip: it rests on the last sample, and on the jobs that this process has admitted since. Only
before a refusal Redis is asked (second_look.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import redis.asyncio
import structlog

from bitladder.contract import Submission
from bitladder.errors import MemoryFullError, OverloadedError, QueueFullError, QueueUnreachableError, RefusedError
from bitladder.queue.load_sample import ListSample, ModelSample, Sample, take_sample
from bitladder.queue.server.outage import OUTAGE
from bitladder.queue_name import Lane, QueueName
from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.forecast import RANK, Forecast, excess_s, forecast, retry_after_s
from bitladder.routing.rates import Load, Reading, TierRates
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from dispatcher.admission.second_look import is_in_time_by_turns, is_repeat
from dispatcher.metrics.intake_metrics import AdmissionMetrics

log = structlog.get_logger()

_SAMPLE_INTERVAL_S = 1.0
# While a backlog grows whose service rate is not known yet, every job is admitted: that must not last.
_HURRIED_INTERVAL_S = 0.25
# A stale sample refuses no job. A late one, because Redis may be unreachable, refuses none before the next has ended.
STALE_S, LATE_S = 3.0, 1.5
# What a waiting job takes in Redis: its body, by what an allocator rounds up at most, and its record with a reserve
# (docs/benchmarks.md, queued B).
_ROUNDED_UP = 1.25
_JOB_BYTES = 1_000
_ROOM = 0.05  # the share of a full queue that must be gone before clients retry: less would be filled at once
_UNKNOWN_RETRY_S = 5.0  # where the service rate is not known
_MAX_RETRY_S = 300.0

Tier = tuple[str, str]  # model, tier
_NO_JOBS = (0,) * len(Lane)


class _Entry(NamedTuple):
    """What one admitted job adds."""

    tier: Tier
    rank: int
    size_bytes: int


@dataclass(slots=True)
class Admitted:
    """The jobs that this process has admitted since a sample, or before it without an answer from Redis yet."""

    lanes: dict[Tier, list[int]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)  # of the lanes, by model
    bytes: int = 0

    def add(self, entry: _Entry, count: int) -> None:
        tier, rank, size_bytes = entry
        self.lanes.setdefault(tier, list(_NO_JOBS))[rank] += count
        self.totals[tier[0]] = self.totals.get(tier[0], 0) + count
        self.bytes += count * size_bytes

    def of(self, tier: Tier) -> Sequence[int]:
        return self.lanes.get(tier, _NO_JOBS)

    def copy(self) -> Admitted:
        return self.plus(Admitted(), 0)

    def plus(self, other: Admitted, sign: int) -> Admitted:
        tiers, models = {*self.lanes, *other.lanes}, {*self.totals, *other.totals}
        return Admitted(
            {tier: [a + sign * b for a, b in zip(self.of(tier), other.of(tier), strict=True)] for tier in tiers},
            {model: self.totals.get(model, 0) + sign * other.totals.get(model, 0) for model in models},
            self.bytes + sign * other.bytes,
        )


class Admission:
    """Admits or refuses the jobs of one intake process."""

    def __init__(
        self,
        settings: Settings | LiveSettings,
        client: redis.asyncio.Redis,
        metrics: AdmissionMetrics,
        is_connected: Callable[[], bool] = lambda: True,
    ) -> None:
        self._live, self._client = LiveSettings.of(settings), client
        self._metrics, self._is_connected = metrics, is_connected
        self._rates: dict[Tier, TierRates] = {}
        self._loads: dict[Tier, Load] = {}
        self._stuck: frozenset[str] = frozenset()  # lists that no live worker may serve, while their siblings are
        self._broken: frozenset[str] = frozenset()  # queues whose key in Redis is no list
        self._sample: Sample | None = None
        self._waiting: dict[str, int] = {}  # in the last sample, by model
        self._sample_s = 0.0  # time.monotonic
        self._sample_ended = asyncio.Event()  # the next one, well or not
        self._admitted, self._entering = Admitted(), Admitted()

    async def enter(self, job: Submission, latency_budget: LatencyBudget) -> _Entry:
        """Admit a job, and count it. Until `arrived` is called it is in transit to Redis, and in no sample.

        Raises:
            RefusedError: why not, and when to retry.

        """
        queue = QueueName.parse(job.queue)
        size_bytes = int(memoryview(job.request.body).nbytes * _ROUNDED_UP) + _JOB_BYTES
        entry = _Entry((queue.model, queue.tier), RANK[queue.lane], size_bytes)
        refusal = self._refusal(job, entry, latency_budget)
        if refusal and time.monotonic() - self._sample_s > LATE_S:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sample_ended.wait(), STALE_S)
            refusal = self._refusal(job, entry, latency_budget)
        if isinstance(refusal, OverloadedError) and self._live.current.auth.keys:  # else there is one tenant
            entering = self._entering.of(entry.tier)[entry.rank]
            if await is_in_time_by_turns(self._client, job, self._loads[entry.tier], entering, latency_budget):
                refusal = None
        # A repeat is no new work, and the first job with its key may be answered by now.
        if refusal and not await is_repeat(self._client, job):
            raise refusal
        self._admitted.add(entry, 1)
        self._entering.add(entry, 1)
        return entry

    def arrived(self, entry: _Entry) -> None:
        """Note that Redis has answered for a job, with success or not."""
        self._entering.add(entry, -1)

    def room_after_s(self, queue: str, depth: int) -> float:
        """Return when a queue with a cap of `depth` jobs, which is full, has room again."""
        name = QueueName.parse(queue)
        load = self._loads.get((name.model, name.tier))
        wait_s = _UNKNOWN_RETRY_S if load is None or load.rate is None else _ROOM * depth / load.rate
        return _with_jitter(min(_MAX_RETRY_S, wait_s))

    def load_of(self, tier: Tier) -> tuple[Load, Sequence[int], float] | None:
        """Return what is known of a tier, what was admitted since, and for how long; None where that is nothing."""
        elapsed_s = time.monotonic() - self._sample_s
        is_known = self._sample is not None and elapsed_s <= STALE_S and tier in self._loads
        return (self._loads[tier], self._admitted.of(tier), elapsed_s) if is_known else None

    def has_worker(self, model: str, tiers: Sequence[str]) -> bool:
        """Return whether one of these tiers is known to have a live worker."""
        return self._sample is not None and any(map(self._sample.models[model].live.get, tiers))

    async def refresh(self) -> None:
        """Take a sample of the queues, and count admitted jobs anew from here.

        Raises:
            QueueUnreachableError: Redis is unreachable; the last sample stays.

        """
        before, entering = self._admitted.copy(), self._entering.copy()
        sample = await take_sample(self._client, self._live.current)
        self._admitted = self._admitted.plus(before, -1).plus(entering, 1)
        self._waiting = {
            model: sum(queue.depth for queue in seen.lists.values()) for model, seen in sample.models.items()
        }
        stuck: set[str] = set()
        for model, seen in sample.models.items():
            for name in self._live.current.model(model).ladder:
                tier, left_out = (model, name), self._unreachable(model, name, seen)
                stuck |= left_out
                slots = seen.live[name] * self._live.current.model(model).tier(name).slots
                reading = _reading(tier, seen, left_out, slots)
                self._loads[tier] = self._rates.setdefault(tier, TierRates()).add(reading, tuple(before.of(tier)))
        self._stuck, self._sample, self._sample_s = frozenset(stuck), sample, time.monotonic()
        self._log_broken(sample)
        self._export(sample)

    async def run(self) -> None:
        """Take a sample once a second, until cancelled."""
        while True:
            try:
                await self.refresh()
            except QueueUnreachableError as error:
                OUTAGE.warn("admission has no sample of the queues", error=str(error))
                self._sample = None  # from now on jobs are refused because Redis is unreachable
            self._sample_ended.set()
            self._sample_ended = asyncio.Event()
            await asyncio.sleep(_HURRIED_INTERVAL_S if self._lacks_rate() else _SAMPLE_INTERVAL_S)

    def _log_broken(self, sample: Sample) -> None:
        """Log once that a queue's key is no list, and once that it is one again."""
        lists = {name: state for model in sample.models.values() for name, state in model.lists.items()}
        broken = frozenset(name for name, state in lists.items() if state.problem)
        for name in sorted(broken - self._broken):
            log.error(
                "queue broken: it takes and gives no jobs",
                queue=name,
                key=f"rq:queue:{name}",
                problem=lists[name].problem,
            )
        for name in sorted(self._broken - broken):
            log.info("queue whole again", queue=name)
        self._broken = broken

    def _lacks_rate(self) -> bool:
        return any(load.rate is None and sum(load.depth) > load.short for load in self._loads.values())

    def _refusal(self, job: Submission, entry: _Entry, latency_budget: LatencyBudget) -> RefusedError | None:
        elapsed_s = time.monotonic() - self._sample_s
        if self._sample is None or elapsed_s > STALE_S or not self._is_connected():
            return None
        return self._over_caps(job, self._sample) or self._too_late(job, entry, latency_budget, elapsed_s)

    def _over_caps(self, job: Submission, sample: Sample) -> RefusedError | None:
        share, limit = self._live.current.queue.max_memory_share, self._live.current.queue.max_total
        used = sample.used_bytes + self._admitted.bytes
        if sample.max_bytes is not None and used > share * sample.max_bytes:
            return MemoryFullError(
                f"Redis uses {used:,} of {sample.max_bytes:,} bytes; above {share:.0%} no new jobs are taken in "
                "([queue].max_memory_share), so that those that wait can end",
                retry_after_s=_with_jitter(_UNKNOWN_RETRY_S),
            )
        total = self._waiting[job.model] + self._admitted.totals.get(job.model, 0)
        if total >= limit:
            return QueueFullError(
                f"{total} jobs wait for model {job.model}; at most {limit} may ([queue].max_total)",
                retry_after_s=self.room_after_s(job.queue, limit),
            )
        return None

    def _too_late(
        self, job: Submission, entry: _Entry, latency_budget: LatencyBudget, elapsed_s: float
    ) -> OverloadedError | None:
        load, admitted = self._loads[entry.tier], self._admitted.of(entry.tier)
        is_short = load.rate is None or sum(load.depth) + sum(admitted) <= load.short
        if is_short or not self._live.current.intake.admission or job.queue in self._stuck:
            return None
        expected = forecast(load, entry.rank, admitted, elapsed_s)
        if expected is None or expected.ahead <= load.short or (late_s := excess_s(expected, latency_budget)) <= 0:
            return None
        after_s = _with_jitter(min(_MAX_RETRY_S, late_s))
        return OverloadedError(_explain(job.queue, expected, latency_budget, after_s), retry_after_s=after_s)

    def _unreachable(self, model: str, tier: str, seen: ModelSample) -> frozenset[str]:
        """Return the lists of a tier that no live worker may take from; none where that is all of them."""
        ladder = self._live.current.model(model).ladder
        names = [name for name in seen.lists if QueueName.parse(name).tier == tier]
        reached = {name for name in names if any(map(seen.live.__getitem__, QueueName.parse(name).serving(ladder)))}
        return frozenset(names) - reached if reached else frozenset()

    def _export(self, sample: Sample) -> None:
        self._metrics.memory.set(sample.used_bytes / sample.max_bytes if sample.max_bytes else 0)
        for (model, tier), load in self._loads.items():
            self._metrics.rate.labels(model, tier).set(load.rate or 0)
            for lane, rank in RANK.items():
                expected = forecast(load, rank, _NO_JOBS, 0)
                self._metrics.answer.labels(model, tier, lane).set(expected.answer_s if expected else 0)


def _reading(tier: Tier, seen: ModelSample, left_out: frozenset[str], slots: int) -> Reading:
    _, name = tier
    ladder = tuple(seen.live)
    lanes: list[list[tuple[str, ListSample]]] = [[] for _ in RANK]
    for queue, state in seen.lists.items():
        parsed = QueueName.parse(queue)
        if parsed.tier == name:
            lanes[RANK[parsed.lane]].append((queue, state))
    return Reading(
        at_s=seen.at_s,
        depth=tuple(sum(sample.depth for queue, sample in lane if queue not in left_out) for lane in lanes),
        in_flight=tuple(sum(sample.in_flight for _, sample in lane) for lane in lanes),
        served=tuple(sum(sample.served for _, sample in lane) for lane in lanes),
        live=sum(seen.live[serving] for serving in ladder[ladder.index(name) :]),
        slots=slots,
    )


def _explain(queue: str, expected: Forecast, latency_budget: LatencyBudget, after_s: float) -> str:
    limits = (
        (latency_budget.first_s, expected.wait_s, "begin"),
        (latency_budget.whole_s, expected.answer_s, "be there"),
    )
    late = " and ".join(
        f"the answer would {verb} after about {at_s:.1f} s, and the client waits {within_s:.1f} s"
        for within_s, at_s, verb in limits
        if within_s is not None
    )
    return (
        f"queue {queue} is overloaded: {expected.ahead} jobs wait ahead and {expected.rate:.1f} of them end in a "
        f"second, so {late}; try again in {after_s:.0f} s"
    )


def _with_jitter(wait_s: float) -> float:
    return retry_after_s(wait_s, random.random())  # noqa: S311  (jitter)
