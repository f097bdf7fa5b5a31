"""One look at all queues of all models and at Redis' memory, in one round trip: what the admission goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from bitladder.queue.plan import all_lists
from bitladder.queue.run_script import digest, source
from bitladder.queue.server.protocol import unreachable
from bitladder.settings.sections import Settings


class ListSample(msgspec.Struct, frozen=True, kw_only=True):
    """One list of one tier and lane."""

    depth: int
    in_flight: int
    problem: str  # what is wrong with it in Redis, where it is no list
    served: int  # executions that ended since the count began


class ModelSample(msgspec.Struct, frozen=True, kw_only=True):
    """All lists of one model, by queue name."""

    at_s: float  # the server's clock
    live: Mapping[str, int]  # workers by tier
    lists: Mapping[str, ListSample]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    models: Mapping[str, ModelSample]
    used_bytes: int
    max_bytes: int | None  # None: Redis may take what the machine has


async def take_sample(client: redis.asyncio.Redis, settings: Settings) -> Sample:
    """Look once.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    try:
        answers = await _ask(client, settings)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await client.script_load(source("depths"))
            answers = await _ask(client, settings)
    except (RedisError, OSError) as error:
        raise unreachable("cannot look at the queues", error) from error
    memory, *rows = answers
    for answer in (memory, *rows[::2]):
        if isinstance(answer, Exception):
            raise unreachable("cannot look at the queues", answer) from answer
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return Sample(
        models={name: _model(settings, name, *pair) for name, pair in zip(settings.models, pairs, strict=True)},
        used_bytes=int(memory["used_memory"]),
        max_bytes=int(memory.get("maxmemory", 0)) or None,
    )


async def _ask(client: redis.asyncio.Redis, settings: Settings) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        pipe.info("memory")
        for name, model in settings.models.items():
            live, lists = [f"bl:live:{name}:{tier}" for tier in model.ladder], all_lists(name, model)
            pipe.evalsha(digest("depths"), len(live), *live, *lists)
            pipe.hmget(f"bl:served:{name}", lists)
        return list(await pipe.execute(raise_on_error=False))


def _model(settings: Settings, name: str, looked: list[Any], served: list[bytes | None] | Exception) -> ModelSample:
    now_ms, live, rows = looked
    lists = all_lists(name, settings.model(name))
    counts = [None] * len(lists) if isinstance(served, Exception) else served  # somebody wrote over the key
    return ModelSample(
        at_s=int(now_ms) / 1000,
        live=dict(zip(settings.model(name).ladder, live, strict=True)),
        lists={
            queue: ListSample(
                depth=int(row[0]), in_flight=int(row[1]), problem=row[3].decode(errors="replace"), served=_count(count)
            )
            for queue, row, count in zip(lists, rows, counts, strict=True)
        },
    )


def _count(raw: bytes | None) -> int:
    """Read a count from a field that anybody may have written."""
    return int(raw) if raw and raw.isdigit() and len(raw) < 16 else 0
