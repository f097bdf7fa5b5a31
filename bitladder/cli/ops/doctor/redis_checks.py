"""Redis: what a process asks at its start, and what the server says of itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError, ResponseError
from structlog.testing import capture_logs

from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, fail, ok, skipped, warn
from bitladder.cli.ops.doctor.redis_facts import Measured, judge
from bitladder.errors import BitladderError, ConfigError
from bitladder.queue.checks.rights import INTAKE, PRODUCER, WORKER
from bitladder.queue.checks.server_check import RefusedError, check_server
from bitladder.queue.server.connection import connect, sentinels_of
from bitladder.queue.server.durability import check_durability
from bitladder.queue.server.protocol import KEY
from bitladder.settings.redis_section import RedisSettings

_RIGHTS = {Role.INTAKE: INTAKE, Role.WORKER: WORKER, Role.PRODUCER: PRODUCER}
_ROUND_TRIPS = 50
_SEE = "see docs/operating.md, A Redis that cannot serve"


def check_redis(examined: Examined) -> list[Finding]:
    """Return what is to be said of each server, and of the Sentinels that name it."""
    findings: list[Finding] = []
    for part in examined.at_each_redis():
        findings += [*_sentinels(part.settings.redis), *asyncio.run(_ask(part))]
    return findings


def server_name(settings: RedisSettings) -> str:
    """Return what the server is called in the report. The URL has no secret in it."""
    return f"primary {settings.sentinel_name}" if settings.sentinels else settings.url


async def _ask(examined: Examined) -> list[Finding]:
    settings, server = examined.settings, server_name(examined.settings.redis)
    try:
        client = connect(settings.redis)
    except ConfigError as error:
        return [fail("redis.serves", server, str(error), "set what it says, in [redis]")]
    try:
        serves = await _serves(client, examined, server)
        findings = [serves, *await _durability(client, examined, server)] if serves.status == "ok" else [serves]
        measured = await _measure(client)
        return [*findings, *judge(measured, settings, server), await _protocol(client, server)]
    except (RedisError, OSError) as error:
        return [*findings, skipped("redis.facts", server, f"it does not tell: {error}")]
    finally:
        await client.aclose()


async def _serves(client: redis.asyncio.Redis, examined: Examined, server: str) -> Finding:
    """Ask as a process does at its start: version, mode, policy, rights, and whether a script may write."""
    try:
        await check_server(client, examined.settings.redis, _RIGHTS[examined.role])
    except (ConfigError, RefusedError) as error:
        return fail("redis.serves", server, str(error), _SEE)
    except BitladderError as error:
        cure = "start it (bitladder redis starts the embedded Valkey), or correct redis.url and the network"
        return fail("redis.serves", server, str(error), cure)
    user = examined.settings.redis.username or "default"
    return ok("redis.serves", server, f"scripts write, and the user {user} has the rights of the role {examined.role}")


async def _durability(client: redis.asyncio.Redis, examined: Examined, server: str) -> list[Finding]:
    """Ask whether it keeps what queue.durability promises; what a process would log are warnings here."""
    durability = examined.settings.queue.durability
    with capture_logs() as logged:
        try:
            await check_durability(client, examined.settings)
        except BitladderError as error:
            return [fail("redis.durability", server, str(error), _SEE)]
    # That it has no append-only file stands in redis.persistence.
    texts = [str(line["event"]) for line in logged if "append-only file: jobs die" not in str(line["event"])]
    cure = "see docs/operating.md, What an accepted job survives"
    return [warn("redis.durability", server, text, cure) for text in texts] or [
        ok("redis.durability", server, f"as far as it can be asked it keeps queue.durability = {durability!r}")
    ]


async def _measure(client: redis.asyncio.Redis) -> Measured:
    """Ask for all facts; TIME measures the way and the clock at once, and every role may call it."""
    info: dict[str, Any] = await client.info()
    round_trips: list[float] = []
    aheads: list[float] = []
    for _ in range(_ROUND_TRIPS):
        asked_s, start_s = time.time(), time.perf_counter()
        seconds, microseconds = await client.time()
        round_trips.append(time.perf_counter() - start_s)
        aheads.append(seconds + microseconds / 1e6 - asked_s - round_trips[-1] / 2)
    try:
        config: dict[Any, Any] = await client.config_get("appendfsync")
    except ResponseError:  # a managed service, or an ACL
        config = {}
    fastest = round_trips.index(min(round_trips))  # its way tells least wrongly when the server looked at its clock
    return Measured(info, round_trips, aheads[fastest], config.get("appendfsync"))


async def _protocol(client: redis.asyncio.Redis, server: str) -> Finding:
    """Say which protocol is spoken; that this process speaks it too, the connection has asked."""
    spoken = await client.get(KEY)
    if spoken is None:
        return ok("redis.protocol", server, "nobody has spoken yet")
    number = (spoken.decode(errors="replace") if isinstance(spoken, bytes) else str(spoken)).split(" ")[0]
    return ok("redis.protocol", server, f"protocol {number[:20]}, which this version speaks or understands")


def _sentinels(settings: RedisSettings) -> Iterator[Finding]:
    """Ask each Sentinel by itself: one that answers hides those that do not."""
    if not settings.sentinels:
        return
    silent: list[str] = []
    for address, client in zip(settings.sentinels, sentinels_of(settings).sentinels, strict=True):
        try:
            client.ping()
        except (RedisError, OSError):
            silent.append(address)
    count = len(settings.sentinels)
    if silent:
        judged = fail if len(silent) * 2 > count else warn
        text = f"{len(silent)} of {count} do not answer: {', '.join(silent)}"
        yield judged("redis.sentinels", settings.sentinel_name, text, "start them: most must answer for a failover")
    elif count < 3:
        text = f"{count} answer; with fewer than three, no majority survives the loss of one"
        yield warn("redis.sentinels", settings.sentinel_name, text, "run three, on three machines")
    else:
        yield ok("redis.sentinels", settings.sentinel_name, f"all {count} answer")
