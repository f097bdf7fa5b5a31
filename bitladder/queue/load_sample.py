"""A sample of the load: all queues of all models and Redis' memory, in one round trip. The admission uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from bitladder.queue.calls.read import Depths, depths_call, read_depths
from bitladder.queue.run_script import Command, attempts, drive
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
    live: Mapping[str, int]  # workers by tier; none of a paused one
    lists: Mapping[str, ListSample]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The load at one moment."""

    models: Mapping[str, ModelSample]
    used_bytes: int
    max_bytes: int | None  # None: Redis may take what the machine has


async def take_sample(client: redis.asyncio.Redis, settings: Settings) -> Sample:
    """Take a sample.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    beside: list[Any] = []  # answers to what goes in the same round trip
    names = list(settings.models)

    async def send(commands: Sequence[Command]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            pipe.info("memory")
            for name in names:
                pipe.hgetall(f"bl:served:{name}")
            for command in commands:
                pipe.execute_command(*command)
            answers = await pipe.execute(raise_on_error=False)
        beside[:] = answers[: 1 + len(names)]
        return list(answers[1 + len(names) :])

    try:
        rows = await drive(attempts([depths_call(settings, name) for name in names]), send)
    except (RedisError, OSError) as error:
        raise unreachable("cannot look at the queues", error) from error
    memory, *served = beside
    for answer in (memory, *rows):
        if isinstance(answer, Exception):
            raise unreachable("cannot look at the queues", answer) from answer
    depths = [read_depths(settings, name, row) for name, row in zip(names, rows, strict=True)]
    return Sample(
        models={name: _model(*pair) for name, *pair in zip(names, depths, served, strict=True)},
        used_bytes=int(memory["used_memory"]),
        max_bytes=int(memory.get("maxmemory", 0)) or None,
    )


def _model(depths: Depths, served: Mapping[bytes, bytes] | Exception) -> ModelSample:
    # An exception: another program has written a key of another type there.
    counts = {} if isinstance(served, Exception) else served
    return ModelSample(
        at_s=depths.now_ms / 1000,
        live=depths.serving,
        lists={
            queue.queue: ListSample(
                depth=queue.depth,
                in_flight=queue.in_flight,
                problem=queue.problem,
                served=_count(counts.get(queue.queue.encode())),
            )
            for queue in depths.queues
        },
    )


def _count(raw: bytes | None) -> int:
    """Read a count from a field that another program may have written."""
    return int(raw) if raw and raw.isdigit() and len(raw) < 16 else 0
