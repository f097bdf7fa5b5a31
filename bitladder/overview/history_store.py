"""The history in Redis: a hash for each resolution, used as a ring, so that it is bounded whatever happens.

The field of a point is its number modulo the number of points that are kept; its value says which span it is.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from redis.exceptions import RedisError, ResponseError

from bitladder.overview.history import (
    RESOLUTIONS,
    Counts,
    Point,
    Resolution,
    next_counts,
    resolution_for,
    roll_up,
    slot_of,
    tier_point,
)
from bitladder.overview.history_answer import History, describe_history
from bitladder.overview.overview_reader import Sample
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.job_record import is_odd_type
from bitladder.queue.server.protocol import unreachable

T = TypeVar("T")
_LEASE_KEY, _COUNTS_KEY = "bl:history:lease", "bl:history:counts"
# An intake that has the lease and is gone is followed after so long at most.
LEASE_MS = 25_000
_KEPT_MS = 31 * 86_400_000
_MAX_BYTES = 65_536  # of a point
_BUNDLE = 480  # points that one command reads
_FINEST = RESOLUTIONS[0]


class HistoryStore:
    """Writes the history, at one process at a time, and reads it."""

    def __init__(self, queue: JobQueue, process: str) -> None:
        self._queue, self._process = queue, process

    async def takes_lease(self) -> bool:
        """Take or renew the lease; False where another process has it.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        client = self._queue.client
        try:
            if await client.set(_LEASE_KEY, self._process, nx=True, px=LEASE_MS):
                return True
            if await client.get(_LEASE_KEY) != self._process.encode():
                return False
            return bool(await client.pexpire(_LEASE_KEY, LEASE_MS))
        except (RedisError, OSError) as error:
            if is_odd_type(error):  # another program's: the next try takes it
                await client.delete(_LEASE_KEY)
                return False
            raise unreachable("cannot write the history", error) from error

    async def give_up_lease(self) -> None:
        """Leave the history to another process.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        client = self._queue.client
        try:
            if await client.get(_LEASE_KEY) == self._process.encode():
                await client.delete(_LEASE_KEY)
        except (RedisError, OSError) as error:
            raise unreachable("cannot write the history", error) from error

    async def write(self, sample: Sample) -> None:
        """Write the point of a sample, unless its span has one, and the coarser ones that it belongs to.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        at = sample.overview.at
        before = _decode(_COUNTS.decode, await self._get_counts(), max_bytes=None)
        slot = slot_of(at, _FINEST.step_s)
        if before and slot_of(before.at, _FINEST.step_s) == slot:
            return
        point = _point(sample, before, slot)
        rows = [(_FINEST, point)]
        for finer, coarser in itertools.pairwise(RESOLUTIONS):
            begin = slot_of(slot, coarser.step_s)
            others = [at for at in range(begin, begin + coarser.step_s, finer.step_s) if at != rows[-1][1].at]
            parts = [*await self._read(finer, others), rows[-1][1]]
            rows.append((coarser, roll_up(parts, begin)))
        reports = {name: report for seen in sample.fleet.values() for name, report in seen.reports.items()}
        await self._put(rows, next_counts(before, at, reports))

    async def read(self, range_s: int) -> History:
        """Read the history of the last so many seconds.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        resolution, settings = resolution_for(range_s), self._queue.settings
        now_s, step_s = await self._now_s(), resolution.step_s
        begin = slot_of(now_s - range_s, step_s) + step_s
        points = await self._read(resolution, range(begin, slot_of(now_s, step_s) + 1, step_s))
        ladders = {name: model.ladder for name, model in settings.models.items()}
        # Thousands of points take tens of milliseconds, in which the requests of others go on.
        return await asyncio.to_thread(describe_history, points, now_s, range_s, step_s, ladders)

    async def _now_s(self) -> int:
        try:
            return int((await self._queue.client.time())[0])
        except (RedisError, OSError) as error:
            raise unreachable("cannot read the history", error) from error

    async def _get_counts(self) -> bytes | None:
        try:
            raw: Any = await self._queue.client.get(_COUNTS_KEY)
        except ResponseError:  # another program's: written anew
            return None
        except (RedisError, OSError) as error:
            raise unreachable("cannot read the history", error) from error
        return bytes(raw) if raw is not None else None

    async def _read(self, resolution: Resolution, moments: Sequence[int]) -> list[Point]:
        points: list[Point] = []
        for start in range(0, len(moments), _BUNDLE):
            bundle = moments[start : start + _BUNDLE]
            for at, raw in zip(bundle, await self._fields(resolution, bundle), strict=False):
                point = _decode(_POINT.decode, raw)
                if point and point.at == at:
                    points.append(point)
            await asyncio.sleep(0)
        return points

    async def _fields(self, resolution: Resolution, moments: Sequence[int]) -> list[bytes | None]:
        try:
            values: list[Any] = await self._queue.client.hmget(
                _key(resolution), [_field(resolution, at) for at in moments]
            )
        except ResponseError:  # a key of another type, which is not ours
            return []
        except (RedisError, OSError) as error:
            raise unreachable("cannot read the history", error) from error
        return values

    async def _put(self, rows: Sequence[tuple[Resolution, Point]], counts: Counts) -> None:
        try:
            async with self._queue.client.pipeline(transaction=False) as pipe:
                for resolution, point in rows:
                    pipe.hset(_key(resolution), _field(resolution, point.at), msgspec.json.encode(point))
                    pipe.pexpire(_key(resolution), _KEPT_MS)
                pipe.set(_COUNTS_KEY, msgspec.json.encode(counts), px=_KEPT_MS)
                answers = await pipe.execute(raise_on_error=False)
            for (resolution, _), answer in zip(rows, answers[::2], strict=False):
                if is_odd_type(answer):  # another program's: the next point begins it anew
                    await self._queue.client.delete(_key(resolution))
                elif isinstance(answer, Exception):
                    raise answer
        except (RedisError, OSError) as error:
            raise unreachable("cannot write the history", error) from error


_POINT, _COUNTS = msgspec.json.Decoder(Point), msgspec.json.Decoder(Counts)


def _key(resolution: Resolution) -> str:
    return f"bl:history:{resolution.step_s}"


def _field(resolution: Resolution, at: int) -> str:
    return str(at // resolution.step_s % resolution.points)


def _point(sample: Sample, before: Counts | None, slot: int) -> Point:
    overview = sample.overview
    tiers = {}
    for model in overview.models:
        tiers[model.model] = {
            tier.tier: tier_point(tier, sample.reports(model.model, tier.tier), before, overview.at)
            for tier in model.tiers
        }
    return Point(
        at=slot,
        samples=1,
        tiers=tiers,
        dead_letters=overview.dead_letters.total,
        memory_share=overview.redis.memory_share,
    )


def _decode(decode: Callable[[bytes], T], raw: bytes | None, max_bytes: int | None = _MAX_BYTES) -> T | None:
    """Read what another program may have written; None for everything that is not ours."""
    if not raw or (max_bytes is not None and len(raw) > max_bytes):
        return None
    try:
        return decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
