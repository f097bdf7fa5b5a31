"""Who is let in: caps, memory, and whether the answer can come in time. Looks at the queues once a second.

Deciding costs no round trip: it goes by the last look, and by what this process has let in since.
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
from redis.exceptions import RedisError

from bitladder.contract import Lane, QueueName, Submission
from bitladder.errors import MemoryFullError, OverloadedError, QueueFullError, QueueUnreachableError, RefusedError
from bitladder.queue.claim_plan import lists_of
from bitladder.queue.load_sample import ModelSample, Sample, take_sample
from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.forecast import RANK, Forecast, excess_s, forecast, retry_after_s
from bitladder.routing.rates import Load, Reading, TierRates
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from dispatcher.metrics import AdmissionMetrics

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
# While a backlog grows whose rate is not known yet, everybody is let in: that must not last.
HURRIED_LOOK_S = 0.25
# An older look says nothing about now: then nobody is refused for it. It may be late because Redis is unreachable:
# then nobody is refused before it ends.
STALE_S, LATE_S = 3.0, 1.5
# What a waiting job takes in Redis: its body, by what an allocator rounds up at most, and its record with a reserve
# (docs/benchmarks.md, queued B).
ROUNDED_UP = 1.25
JOB_BYTES = 1_000
# A full queue has room again when this share of it is gone: less would be filled at once by whoever comes first.
ROOM = 0.05
# Where the rate is not known.
UNKNOWN_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0

Tier = tuple[str, str]  # model, tier
NOBODY = (0,) * len(Lane)


class Entry(NamedTuple):
    """What one job that is let in adds."""

    tier: Tier
    rank: int
    size_bytes: int


@dataclass(slots=True)
class Admitted:
    """What this process has let in since a look, or before it without an answer from Redis yet."""

    lanes: dict[Tier, list[int]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)  # of the lanes, by model
    bytes: int = 0

    def add(self, entry: Entry, count: int) -> None:
        tier, rank, size_bytes = entry
        self.lanes.setdefault(tier, list(NOBODY))[rank] += count
        self.totals[tier[0]] = self.totals.get(tier[0], 0) + count
        self.bytes += count * size_bytes

    def of(self, tier: Tier) -> Sequence[int]:
        return self.lanes.get(tier, NOBODY)

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
    """The endpoint of one intake process."""

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
        self._stuck: frozenset[str] = frozenset()  # lists that nobody alive may serve, while their siblings are served
        self._broken: frozenset[str] = frozenset()  # lists that are none in Redis
        self._sample: Sample | None = None
        self._waiting: dict[str, int] = {}  # at the last look, by model
        self._looked_s = 0.0  # time.monotonic
        self._look_ended = asyncio.Event()  # the next one, well or not
        self._admitted, self._entering = Admitted(), Admitted()

    async def enter(self, job: Submission, latency_budget: LatencyBudget) -> Entry:
        """Let a job in, and count it. Until `arrived` says so it is on its way to Redis: no look can have seen it.

        Raises:
            RefusedError: why not, and when to come back.

        """
        queue = QueueName.parse(job.queue)
        size_bytes = int(memoryview(job.request.body).nbytes * ROUNDED_UP) + JOB_BYTES
        entry = Entry((queue.model, queue.tier), RANK[queue.lane], size_bytes)
        refusal = self._refusal(job, entry, latency_budget)
        if refusal and time.monotonic() - self._looked_s > LATE_S:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_ended.wait(), STALE_S)
            refusal = self._refusal(job, entry, latency_budget)
        # A repeat is no new work, and its first job may have the answer by now.
        if refusal and not await self._is_repeat(job):
            raise refusal
        self._admitted.add(entry, 1)
        self._entering.add(entry, 1)
        return entry

    def arrived(self, entry: Entry) -> None:
        """Note that Redis has answered for a job, whatever it was."""
        self._entering.add(entry, -1)

    def room_after_s(self, queue: str, depth: int) -> float:
        """Return when a queue with a cap of `depth` jobs, which is full, has room again."""
        name = QueueName.parse(queue)
        load = self._loads.get((name.model, name.tier))
        wait_s = UNKNOWN_RETRY_S if load is None or load.rate is None else ROOM * depth / load.rate
        return _come_back(min(LONGEST_RETRY_S, wait_s))

    async def look(self) -> None:
        """Look at the queues, and count anew from here.

        Raises:
            QueueUnreachableError: Redis is unreachable; what was known stays.

        """
        before, entering = self._admitted.copy(), self._entering.copy()
        sample = await take_sample(self._client, self._live.current)
        self._admitted = self._admitted.plus(before, -1).plus(entering, 1)
        self._waiting = {model: sum(one.depth for one in its.lists.values()) for model, its in sample.models.items()}
        stuck: set[str] = set()
        for model, seen in sample.models.items():
            for name in self._live.current.model(model).ladder:
                tier, left_out = (model, name), self._unreachable(model, name, seen)
                stuck |= left_out
                slots = seen.live[name] * self._live.current.model(model).tier(name).slots
                reading = _reading(tier, seen, left_out, slots)
                self._loads[tier] = self._rates.setdefault(tier, TierRates()).add(reading, tuple(before.of(tier)))
        self._stuck, self._sample, self._looked_s = frozenset(stuck), sample, time.monotonic()
        self._name_broken(sample)
        self._show(sample)

    async def look_for_ever(self) -> None:
        """Look once a second, until cancelled."""
        is_blind = False
        while True:
            try:
                await self.look()
                is_blind = False
            except QueueUnreachableError as error:
                if not is_blind:
                    log.warning("admission without a look at the queues", error=str(error))
                is_blind, self._sample = True, None  # what is refused now is refused because Redis is unreachable
            self._look_ended.set()
            self._look_ended = asyncio.Event()
            await asyncio.sleep(HURRIED_LOOK_S if self._is_ignorant() else LOOK_EVERY_S)

    def _name_broken(self, sample: Sample) -> None:
        """Say once of a list that it is none, and once that it is one again."""
        lists = {name: one for its in sample.models.values() for name, one in its.lists.items()}
        broken = frozenset(name for name, one in lists.items() if one.problem)
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

    def _is_ignorant(self) -> bool:
        return any(load.rate is None and sum(load.depth) > load.short for load in self._loads.values())

    def _refusal(self, job: Submission, entry: Entry, latency_budget: LatencyBudget) -> RefusedError | None:
        elapsed_s = time.monotonic() - self._looked_s
        if self._sample is None or elapsed_s > STALE_S or not self._is_connected():
            return None
        return self._over_caps(job, self._sample) or self._too_late(job, entry, latency_budget, elapsed_s)

    def _over_caps(self, job: Submission, sample: Sample) -> RefusedError | None:
        share, most = self._live.current.queue.max_memory_share, self._live.current.queue.max_total
        used = sample.used_bytes + self._admitted.bytes
        if sample.max_bytes is not None and used > share * sample.max_bytes:
            return MemoryFullError(
                f"Redis uses {used:,} of {sample.max_bytes:,} bytes; above {share:.0%} no new jobs are taken in "
                "([queue].max_memory_share), so that those that wait can end",
                retry_after_s=_come_back(UNKNOWN_RETRY_S),
            )
        total = self._waiting[job.model] + self._admitted.totals.get(job.model, 0)
        if total >= most:
            return QueueFullError(
                f"{total} jobs wait for model {job.model}; at most {most} may ([queue].max_total)",
                retry_after_s=self.room_after_s(job.queue, most),
            )
        return None

    def _too_late(
        self, job: Submission, entry: Entry, latency_budget: LatencyBudget, elapsed_s: float
    ) -> OverloadedError | None:
        load, admitted = self._loads[entry.tier], self._admitted.of(entry.tier)
        is_short = load.rate is None or sum(load.depth) + sum(admitted) <= load.short
        if is_short or not self._live.current.intake.admission or job.queue in self._stuck:
            return None
        found = forecast(load, entry.rank, admitted, elapsed_s)
        if found is None or found.ahead <= load.short or (late_s := excess_s(found, latency_budget)) <= 0:
            return None
        after_s = _come_back(min(LONGEST_RETRY_S, late_s))
        return OverloadedError(_explain(job.queue, found, latency_budget, after_s), retry_after_s=after_s)

    async def _is_repeat(self, job: Submission) -> bool:
        if not job.idempotency_key:
            return False
        with contextlib.suppress(RedisError, OSError):
            return bool(await self._client.exists(f"bl:idem:{job.model}:{job.idempotency_key}"))
        return False

    def _unreachable(self, model: str, tier: str, seen: ModelSample) -> frozenset[str]:
        """Return the lists of a tier that no live worker may take from; none where that is all of them."""
        ladder = self._live.current.model(model).ladder
        mine = [name for name in seen.lists if QueueName.parse(name).tier == tier]
        reached = {name for name in mine if any(seen.live[one] for one in _reach(name, ladder))}
        return frozenset(mine) - reached if reached else frozenset()

    def _show(self, sample: Sample) -> None:
        self._metrics.memory.set(sample.used_bytes / sample.max_bytes if sample.max_bytes else 0)
        for (model, tier), load in self._loads.items():
            self._metrics.rate.labels(model, tier).set(load.rate or 0)
            for lane, rank in RANK.items():
                found = forecast(load, rank, NOBODY, 0)
                self._metrics.answer.labels(model, tier, lane).set(found.answer_s if found else 0)


def _reach(queue: str, ladder: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tiers that may serve a list: from its own up to its ceiling."""
    name = QueueName.parse(queue)
    return ladder[ladder.index(name.tier) : ladder.index(name.ceiling or ladder[-1]) + 1]


def _reading(tier: Tier, seen: ModelSample, left_out: frozenset[str], slots: int) -> Reading:
    model, name = tier
    ladder = tuple(seen.live)
    lanes = [[(one, seen.lists[one]) for one in lists_of(model, ladder, name, lane, name)] for lane in RANK]
    return Reading(
        at_s=seen.at_s,
        depth=tuple(sum(one.depth for name, one in lane if name not in left_out) for lane in lanes),
        in_flight=tuple(sum(one.in_flight for _, one in lane) for lane in lanes),
        served=tuple(sum(one.served for _, one in lane) for lane in lanes),
        live=sum(seen.live[one] for one in ladder[ladder.index(name) :]),
        slots=slots,
    )


def _explain(queue: str, found: Forecast, latency_budget: LatencyBudget, after_s: float) -> str:
    limits = (
        (latency_budget.first_s, found.wait_s, "begin"),
        (latency_budget.whole_s, found.answer_s, "be there"),
    )
    late = " and ".join(
        f"the answer would {verb} after about {at_s:.1f} s, and the client waits {within_s:.1f} s"
        for within_s, at_s, verb in limits
        if within_s is not None
    )
    return (
        f"queue {queue} is overloaded: {found.ahead} jobs wait ahead and {found.rate:.1f} of them end in a second, so "
        f"{late}; try again in {after_s:.0f} s"
    )


def _come_back(wait_s: float) -> float:
    return retry_after_s(wait_s, random.random())  # noqa: S311  (jitter)
