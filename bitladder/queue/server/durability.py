"""Durability: which commands follow a submission before its client gets 202, and which server can keep the promise.

WAITAOF and WAIT cover only writes of their own connection, so they follow the submission on that. A repeated submission
writes nothing, and the job that it repeats may not be safe yet, so a dummy SET precedes them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis.asyncio
import structlog
from redis.exceptions import RedisError, ResponseError

from bitladder.errors import ConfigError, QueueUnreachableError
from bitladder.queue.run_script import Argument
from bitladder.queue.server.protocol import unreachable
from bitladder.settings.sections import Settings

log = structlog.get_logger()
# appendfsync everysec syncs once a second: twice that, and a margin for slow disks.
WAIT_MS = 2500
# A server that syncs every second takes longer than this for so many writes, one after the other.
_PROBES, PROBES_MIN_S = 3, 0.5
# Writes as scripts make them: a restart keeps them only if the default user has the right to them.
_REPLAYED: Sequence[tuple[str, ...]] = (
    ("HSET", "rq:job:x", "status", "queued"),
    ("RPUSH", "rq:queue:x", "x"),
    ("ZADD", "bl:workers", "1", "x"),
)

Commands = Sequence[Sequence[Argument]]


def barrier(settings: Settings) -> Commands:
    """Return the commands that follow a submission; none where it is answered as soon as it is stored."""
    queue = settings.queue
    if queue.durability == "fsync":
        last: Sequence[Argument] = ("WAITAOF", 1, queue.wait_replicas, WAIT_MS)
    elif queue.wait_replicas:
        last = ("WAIT", queue.wait_replicas, WAIT_MS)
    else:
        return ()
    return (("SET", "bl:written", "1", "PX", 60000), last)


def check_passed(settings: Settings, answers: Sequence[Any]) -> None:
    """Raise unless the answers to the barrier say that the submission is safe.

    Raises:
        QueueUnreachableError: it may not be. Submitting the jobs again is safe.

    """
    for answer in answers:
        if isinstance(answer, Exception):
            raise QueueUnreachableError(f"Redis refused to confirm that what it has is safe: {answer}") from answer
    copies, min_replicas = answers[-1], settings.queue.wait_replicas
    local, replicas = copies if isinstance(copies, list) else (1, copies)
    if local < 1:
        raise QueueUnreachableError(f"the append-only file did not have it within {WAIT_MS} ms")
    if replicas < min_replicas:
        raise QueueUnreachableError(f"{replicas} replicas had it within {WAIT_MS} ms, not {min_replicas}")


async def check_durability(client: redis.asyncio.Redis, settings: Settings) -> None:
    """Refuse a server that cannot keep what `queue.durability` promises.

    Raises:
        ConfigError: it has no append-only file, its WAITAOF answers before anything is on disk, or its restart would
            drop what the file holds.
        QueueUnreachableError: there is no answer.

    """
    durability = settings.queue.durability
    if durability == "memory":
        return
    try:
        stored = await client.info("persistence")
        if stored.get("loading"):  # until it has read its append-only file it says that it has none
            raise QueueUnreachableError("Redis is loading its data")
        has_file = stored.get("aof_enabled") == 1
        if not has_file and durability == "everysec":
            log.warning(
                "redis has no append-only file: jobs die with it (queue.durability = 'memory' if that is meant)"
            )
        if has_file:
            await _check_replay(client)
        if settings.queue.wait_replicas:
            await _check_replicas(client, settings.queue.wait_replicas)
        if durability == "fsync":
            await _check_fsync(client, has_file=has_file)
    except (RedisError, OSError) as error:
        raise unreachable("cannot ask Redis how it stores", error) from error


async def _check_replay(client: redis.asyncio.Redis) -> None:
    """Refuse a Redis that would drop the writes of scripts when it reads its append-only file (redis/redis#14541)."""
    if (await client.info("server")).get("server_name") == "valkey":
        return
    for command in _REPLAYED:
        try:
            answer = await client.execute_command("ACL", "DRYRUN", "default", *command)  # type: ignore[no-untyped-call]  # redis-py
        except ResponseError:  # unknown command, or no right to it: a managed service, or an ACL
            log.warning("redis does not say what its default user may do: a restart keeps jobs only if it may do all")
            return
        if answer not in (b"OK", "OK"):
            raise ConfigError(
                f"Redis would lose every job at its next restart: its default user may not {command[0]} {command[1]}, "
                "and what its append-only file holds is checked against that user (redis/redis#14541). Switch the user "
                "off instead of taking its rights: user default reset off ~* &* +@all"
            )


async def _check_replicas(client: redis.asyncio.Redis, min_replicas: int) -> None:
    """Warn where a failover may promote a replica other than those that acknowledged a job."""
    connected = (await client.info("replication")).get("connected_slaves", 0)
    if connected > min_replicas:
        log.warning(
            "a failover may promote a replica that has no copy of the last jobs: set queue.wait_replicas to the number "
            "of replicas",
            wait_replicas=min_replicas,
            replicas=connected,
        )


async def _check_fsync(client: redis.asyncio.Redis, *, has_file: bool) -> None:
    if not has_file:
        raise ConfigError("queue.durability is 'fsync', but Redis has no append-only file: set appendonly yes")
    if not await _knows_waitaof(client):
        raise ConfigError("queue.durability is 'fsync', which needs WAITAOF: Redis must have version 7.2 or newer")
    try:
        config: dict[Any, Any] = await client.config_get("appendfsync")
    except ResponseError:  # a managed service, or an ACL
        log.warning("redis does not say its appendfsync: 'fsync' holds with 'always', see docs/operating.md")
        return
    policy = config.get("appendfsync", "always")
    if policy == "no":
        raise ConfigError("queue.durability is 'fsync', but Redis has appendfsync no: set always or everysec")
    if policy == "everysec" and await _answers_before_fsync(client):
        raise ConfigError(
            "queue.durability is 'fsync', but WAITAOF of this server does not wait for the disk with appendfsync "
            "everysec (redis/redis#13793): set appendfsync always"
        )


async def _knows_waitaof(client: redis.asyncio.Redis) -> bool:
    try:
        await client.execute_command("WAITAOF", 0, 0, 1)  # type: ignore[no-untyped-call]  # redis-py
    except ResponseError as error:
        if "unknown command" in str(error):
            return False
        raise
    return True


async def _answers_before_fsync(client: redis.asyncio.Redis) -> bool:
    """Return whether WAITAOF answers faster than a server can that syncs once a second."""
    start = time.monotonic()
    for _ in range(_PROBES):
        await client.set("bl:written", "1", px=60000)
        await client.execute_command("WAITAOF", 1, 0, int(PROBES_MIN_S * 1000))  # type: ignore[no-untyped-call]  # redis-py
    return time.monotonic() - start < PROBES_MIN_S
