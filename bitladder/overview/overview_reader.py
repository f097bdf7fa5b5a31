"""Reads one sample of the whole service from Redis: in two round trips, and what changes slowly less often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.exceptions import RedisError

from bitladder.overview.cost_report import report_costs
from bitladder.overview.overview_notes import notes_of
from bitladder.overview.shape import (
    MAX_CODES,
    MAX_KEYS,
    DayCosts,
    DeadLetterSums,
    LaneOverview,
    ModelOverview,
    Overview,
    RedisOverview,
    TierOverview,
)
from bitladder.queue.calls.read import Depth, Depths
from bitladder.queue.calls.upkeep import DEAD_LETTERS
from bitladder.queue.calls.worker_report import LOST_WINDOW_S, STALE_MS, Breaker, WorkerReport, read_report
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.steering.pausing import describe_pause
from bitladder.queue.pauses import Pause, pause_of_queue, pause_of_tier
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.untrusted import read_amount, read_number
from bitladder.queue_name import Lane, QueueName
from bitladder.settings.models_section import TierSettings

# Workers that one sample looks at.
MAX_WORKERS = 2_000
# Dead letters whose errors are counted, the latest ones.
_MAX_COUNTED = 500
# Costs, budgets and errors of dead letters are read anew so often.
_SLOW_S = 10.0
_FIELDS = ("model", "tier", "ready", "held", "reported", "report")
# Model, tier and lane -> how long a job that comes in now waits; None: not known.
ExpectedWait = Callable[[str, str, str], float | None]


class Fleet(msgspec.Struct, kw_only=True):
    """The workers of one tier that have a lease."""

    workers: int = 0
    not_ready: int = 0
    held: int = 0
    reports: dict[str, WorkerReport] = {}  # by worker: those that are not old


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """An overview, and what its history counts from."""

    overview: Overview
    fleet: Mapping[tuple[str, str], Fleet]  # by model and tier

    def reports(self, model: str, tier: str) -> Mapping[str, WorkerReport]:
        return self.fleet.get((model, tier), Fleet()).reports


class OverviewReader:
    """Reads samples; `expected_wait` and `refused_change` (see `notes_of`) are what the process knows beside Redis."""

    def __init__(
        self,
        queue: JobQueue,
        expected_wait: ExpectedWait = lambda *_: None,
        refused_change: Callable[[], str] = str,
    ) -> None:
        self._queue, self._expected_wait, self._refused_change = queue, expected_wait, refused_change
        self._slow_s = -_SLOW_S  # when what changes slowly was read (monotonic)
        self._costs: DayCosts | None = None
        self._codes: Counter[str] = Counter()
        self._counted = 0

    async def read(self) -> Sample:
        """Read one sample.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        queue, models = self._queue, self._queue.settings.models
        shared = await queue.overview()
        depths = {name: await queue.depths(name) for name in models}
        now_ms = max(seen.now_ms for seen in depths.values())
        server, dead, leases = await self._server_state(now_ms)
        fleet = await self._read_fleet(leases, now_ms)
        if time.monotonic() - self._slow_s >= _SLOW_S:
            await self._read_slow(has_dead_letters=dead[0] > 0)
        overview = Overview(
            at=now_ms / 1000,
            suspended=shared.is_suspended,
            pauses=[entry for pause in shared.pauses if (entry := describe_pause(pause))],
            models=[self._model(name, depths[name], fleet, shared.pauses) for name in models],
            dead_letters=DeadLetterSums(
                total=dead[0], added=dead[1], by_error=_first_codes(self._codes), counted=self._counted
            ),
            redis=server,
            costs_today=self._costs or _NO_COSTS,
            notes=[],
        )
        limits = queue.settings.queue
        notes = notes_of(
            overview,
            depths,
            refused_change=self._refused_change(),
            max_memory_share=limits.max_memory_share,
            max_depth=limits.max_depth,
        )
        return Sample(overview=msgspec.structs.replace(overview, notes=notes), fleet=fleet)

    async def _server_state(self, now_ms: int) -> tuple[RedisOverview, tuple[int, int], list[bytes]]:
        """Read Redis' memory and version, how many dead letters there are and came, and who has a lease."""
        memory, server, total, added, leases = await self._ask(
            ("INFO", "memory"),
            ("INFO", "server"),
            ("ZCARD", DEAD_LETTERS),
            ("ZCOUNT", DEAD_LETTERS, now_ms - LOST_WINDOW_S * 1000, "+inf"),
            ("ZRANGEBYSCORE", "bl:workers", now_ms, "+inf", "LIMIT", 0, MAX_WORKERS),
        )
        for answer in (memory, server):
            if isinstance(answer, Exception):  # it may not be asked, or is loading its data
                raise unreachable("cannot read the state of Redis", answer) from answer
        used, limit = int(memory["used_memory"]), int(memory.get("maxmemory", 0)) or None
        version = server.get("valkey_version") or server.get("redis_version") or ""
        name = "Valkey" if "valkey_version" in server else "Redis"
        overview = RedisOverview(
            version=f"{name} {version}",
            used_bytes=used,
            max_bytes=limit,
            memory_share=round(used / limit, 4) if limit else None,
        )
        return overview, (_whole(total), _whole(added)), leases if isinstance(leases, list) else []

    async def _read_fleet(self, leases: Sequence[bytes], now_ms: int) -> dict[tuple[str, str], Fleet]:
        names = [name.decode(errors="replace") for name in leases]
        rows = await self._ask(*(("HMGET", f"rq:worker:{name}", *_FIELDS) for name in names))
        fleet: dict[tuple[str, str], Fleet] = {}
        for name, row in zip(names, rows, strict=True):
            if isinstance(row, Exception) or row[0] is None or row[1] is None:
                continue
            model, tier, ready, held, reported, raw = row
            seen = fleet.setdefault((model.decode(errors="replace"), tier.decode(errors="replace")), Fleet())
            seen.workers += 1
            seen.not_ready += ready != b"1"
            seen.held += max(0, read_number(held) or 0)
            report = read_report(raw)
            if report and now_ms - (read_number(reported) or 0) <= STALE_MS:
                seen.reports[name] = report
        return fleet

    async def _read_slow(self, *, has_dead_letters: bool) -> None:
        """Read costs, budgets and errors of the latest dead letters."""
        queue = self._queue
        report = await report_costs(queue, "model", 1)
        heads = await DeadLetters(queue).latest(_MAX_COUNTED) if has_dead_letters else []
        self._codes, self._counted = Counter(head.code for head in heads), len(heads)
        self._costs = DayCosts(
            requests=report.total.requests,
            tokens=report.total.tokens,
            attributed=round(report.total.attributed, 6),
            rent=round(report.total.rent or 0.0, 6),
            all_on_top_tier=None if report.total.all_on_top_tier is None else round(report.total.all_on_top_tier, 6),
            budgets_used_up=await self._budgets_used_up(),
        )
        self._slow_s = time.monotonic()

    async def _budgets_used_up(self) -> list[str]:
        limits = {name: key.budget_per_day for name, key in self._queue.settings.auth.keys.items()}
        names = [name for name, limit in limits.items() if limit is not None]
        if not names:
            return []
        (used,) = await self._ask(("HMGET", f"bl:budget:{datetime.now(UTC).date().isoformat()}", *names))
        amounts = [] if isinstance(used, Exception) else used
        spent = {name: read_amount(raw) or 0.0 for name, raw in zip(names, amounts, strict=False)}
        return [name for name in names if spent.get(name, 0.0) >= (limits[name] or 0.0)][:MAX_KEYS]

    async def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands together; in the place of an answer that Redis refuses is the exception."""
        if not commands:
            return []
        try:
            async with self._queue.client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(await pipe.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            raise unreachable("cannot read the state of the service", error) from error

    def _model(
        self, model: str, depths: Depths, fleet: Mapping[tuple[str, str], Fleet], pauses: Sequence[Pause]
    ) -> ModelOverview:
        tiers = self._queue.settings.model(model).tiers
        return ModelOverview(
            model=model,
            tiers=[self._tier(model, tier, depths, fleet.get((model, tier.name), Fleet()), pauses) for tier in tiers],
        )

    def _tier(
        self, model: str, tier: TierSettings, depths: Depths, fleet: Fleet, pauses: Sequence[Pause]
    ) -> TierOverview:
        queues: dict[str, list[Depth]] = {lane: [] for lane in Lane}
        for depth in depths.queues:
            name = QueueName.parse(depth.queue)
            if name.tier == tier.name:
                queues[name.lane].append(depth)
        lanes = {lane: self._lane(QueueName(model, tier.name, lane), rows, pauses) for lane, rows in queues.items()}
        live, reports = depths.live.get(tier.name, 0), list(fleet.reports.values())
        overflow: Counter[str] = Counter()
        for report in reports:
            overflow.update(report.overflow_in)
        return TierOverview(
            tier=tier.name,
            hardware=tier.hardware,
            depth=sum(lane.depth for lane in lanes.values()),
            in_flight=sum(lane.in_flight for lane in lanes.values()),
            oldest_age_s=_oldest(lane.oldest_age_s for lane in lanes.values()),
            expected_wait_s=lanes[Lane.NORMAL].expected_wait_s,
            by_lane=lanes,
            workers=live,
            workers_not_ready=fleet.not_ready,
            # A worker of an earlier version does not report.
            slots=sum(report.slots for report in reports) + max(0, live - len(reports)) * tier.slots,
            held=fleet.held,
            jobs_per_s=round(sum((report.jobs_per_s for report in reports), 0.0), 3),
            tokens_per_s=round(sum((report.tokens_per_s for report in reports), 0.0), 2),
            overflow_in=dict(overflow),
            leases_lost=sum(report.lost for report in reports),
            price_per_hour=tier.price_per_hour,
            cost_per_hour=round(tier.price_per_hour * max(live, fleet.workers), 6),
            shifted=tier.name in depths.shifted,
            breaker=max((report.breaker for report in reports), key=list(Breaker).index, default=None),
            paused=describe_pause(pause_of_tier(pauses, model, tier.name)),
        )

    def _lane(self, name: QueueName, rows: Sequence[Depth], pauses: Sequence[Pause]) -> LaneOverview:
        wait_s = self._expected_wait(name.model, name.tier, name.lane)
        return LaneOverview(
            depth=sum(row.depth for row in rows),
            in_flight=sum(row.in_flight for row in rows),
            oldest_age_s=_oldest(row.oldest_age_s for row in rows),
            expected_wait_s=None if wait_s is None else round(wait_s, 2),
            paused=describe_pause(pause_of_queue(pauses, str(name))),
        )


_NO_COSTS = DayCosts(requests=0, tokens=0, attributed=0.0, rent=0.0, all_on_top_tier=None, budgets_used_up=[])


def _first_codes(codes: Counter[str]) -> dict[str, int]:
    """Return the most frequent codes, and the rest together."""
    first = dict(codes.most_common(MAX_CODES))
    rest = codes.total() - sum(first.values())
    return first | ({"(others)": rest} if rest else {})


def _oldest(ages: Iterable[float | None]) -> float | None:
    return max((round(age, 3) for age in ages if age is not None), default=None)


def _whole(answer: object) -> int:
    """Read a count; 0 where another program has written a key of another type."""
    return answer if isinstance(answer, int) else 0
