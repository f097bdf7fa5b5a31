"""What a server says of itself, judged: pure functions of INFO and of measured round trips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bitladder.cli.ops.doctor.finding import Finding, fail, in_bytes, ok, skipped, warn
from bitladder.settings.sections import Settings

Info = Mapping[str, Any]  # INFO's answer
# A claim or a submission is one round trip; above this they are felt.
_SLOW_S = 0.005
# Deadlines go by the server's clock; signatures of webhooks, keys' expiry and logs by this machine's.
_SKEW_S, _MAX_SKEW_S = 1.0, 300.0
_LAG_S = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """What was asked of a server."""

    info: Info
    round_trips_s: Sequence[float]
    ahead_s: float  # the server's clock before this machine's
    appendfsync: str | None  # None: it does not say


def judge(measured: Measured, settings: Settings, server: str) -> Iterator[Finding]:
    """Yield a finding for each fact."""
    info = measured.info
    yield _version(info, server)
    yield _policy(info, settings, server)
    yield _memory(info, settings, server)
    yield _persistence(measured, settings, server)
    yield from _failed_saves(info, server)
    yield _replicas(info, settings, server)
    yield _clients(info, server)
    yield _latency(measured.round_trips_s, settings, server)
    yield _clock(measured.ahead_s, server)


def _version(info: Info, server: str) -> Finding:
    name, version = "Redis", info.get("redis_version", "unknown")
    if info.get("server_name") == "valkey" or "valkey_version" in info:
        name, version = "Valkey", info.get("valkey_version", version)
    elif "dragonfly_version" in info or "garnet_version" in info:
        return warn(
            "redis.version",
            server,
            f"neither Redis nor Valkey, it stands for {version}: nothing was tried on it",
            "use Redis 7.0 or Valkey 7.2, or newer",
        )
    role = {"master": "primary", "slave": "replica"}.get(str(info.get("role")), str(info.get("role")))
    return ok("redis.version", server, f"{name} {version}, {info.get('redis_mode', 'standalone')}, {role}")


def _policy(info: Info, settings: Settings, server: str) -> Finding:
    policy, evicted = info.get("maxmemory_policy", "noeviction"), int(info.get("evicted_keys", 0))
    cure = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
    if policy != "noeviction":
        lost = f"maxmemory-policy is {policy}: queued jobs vanish when memory is full"
        judged = fail if settings.redis.check_policy else warn
        return judged("redis.policy", server, f"{lost}; {evicted} keys were evicted since its start", cure)
    if evicted:
        return warn(
            "redis.policy",
            server,
            f"noeviction now, but {evicted} keys were evicted since its start: jobs may be among them",
            "look for jobs that clients miss; CONFIG RESETSTAT forgets the count",
        )
    return ok("redis.policy", server, "noeviction")


def _memory(info: Info, settings: Settings, server: str) -> Finding:
    used, limit, share = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)), settings.queue.max_memory_share
    if not limit:
        return warn(
            "redis.memory",
            server,
            f"{in_bytes(used)} used, no maxmemory: a burst may fill the machine, and the kernel then kills something",
            "CONFIG SET maxmemory to some two thirds of the machine's memory, and in its configuration file",
        )
    shown = f"{in_bytes(used)} of {in_bytes(limit)} used ({used / limit:.0%})"
    cure = "raise maxmemory, add workers, or lower queue.result_ttl_s; bitladder queues shows what waits"
    if used >= limit * share:
        text = f"{shown}, above queue.max_memory_share ({share:g}): new jobs get a 503"
        return fail("redis.memory", server, text, cure)
    if used >= limit * share * 0.8:
        return warn("redis.memory", server, f"{shown}; from {share:.0%} on new jobs get a 503", cure)
    return ok("redis.memory", server, shown)


def _persistence(measured: Measured, settings: Settings, server: str) -> Finding:
    info, durability = measured.info, settings.queue.durability
    snapshots = f"last snapshot {info['rdb_last_save_time']}" if info.get("rdb_last_save_time") else "no snapshot"
    if info.get("aof_enabled"):
        sync = f"appendfsync {measured.appendfsync}" if measured.appendfsync else "appendfsync not shown"
        return ok("redis.persistence", server, f"append-only file, {sync}; queue.durability = {durability!r}")
    if durability == "memory":
        text = f"no append-only file ({snapshots}): jobs die with the server, as queue.durability = 'memory' allows"
        return ok("redis.persistence", server, text)
    judged = fail if durability == "fsync" else warn
    return judged(
        "redis.persistence",
        server,
        f"no append-only file ({snapshots}): a restart loses jobs, queue.durability is {durability!r}",
        "appendonly yes in its configuration file, or queue.durability = 'memory' if that is meant",
    )


def _failed_saves(info: Info, server: str) -> Iterator[Finding]:
    """Yield a finding for each save that failed last."""
    kinds = {
        "rdb_last_bgsave_status": "the last snapshot",
        "aof_last_write_status": "the last write to the append-only file",
        "aof_last_bgrewrite_status": "the last rewrite of the append-only file",
    }
    for field, words in kinds.items():
        if info.get(field, "ok") != "ok":
            yield fail(
                "redis.last_save",
                server,
                f"{words} failed: the server may refuse writes",
                "look at its log and its disk (df -h), make room, then BGSAVE or BGREWRITEAOF",
            )


def _replicas(info: Info, settings: Settings, server: str) -> Finding:
    connected, needed = int(info.get("connected_slaves", 0)), settings.queue.wait_replicas
    replicas = [info.get(f"slave{number}", {}) for number in range(connected)]
    late = [f"{replica.get('ip')}:{replica.get('port')}" for replica in replicas if _is_late(replica)]
    if needed > connected:
        return fail(
            "redis.replicas",
            server,
            f"{connected} replicas, queue.wait_replicas is {needed}: no submission can be confirmed",
            "start the replicas, or lower queue.wait_replicas",
        )
    if late:
        text = f"{len(late)} of {connected} replicas are behind or not online: {', '.join(late[:5])}"
        return warn("redis.replicas", server, text, "look at INFO replication and the replicas' logs")
    if not connected:
        return ok("redis.replicas", server, "none, and none is waited for")
    return ok("redis.replicas", server, f"{connected}, {needed} of them confirm a submission")


def _is_late(replica: object) -> bool:
    if not isinstance(replica, dict):
        return False
    return replica.get("state") != "online" or int(replica.get("lag", 0)) > _LAG_S


def _clients(info: Info, server: str) -> Finding:
    connected, limit = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    shown = f"{connected} connections, {limit or 'unknown'} are allowed"
    if limit and connected > 0.8 * limit:
        return warn("redis.clients", server, shown, "CONFIG SET maxclients, and a higher limit of open files for it")
    return ok("redis.clients", server, shown)


def _latency(round_trips_s: Sequence[float], settings: Settings, server: str) -> Finding:
    if not round_trips_s:
        return skipped("redis.latency", server, "not measured")
    middle, worst, limit = median(round_trips_s), max(round_trips_s), settings.redis.timeout_s
    shown = f"{len(round_trips_s)} round trips: median {middle * 1000:.2f} ms, worst {worst * 1000:.1f} ms"
    if middle > _SLOW_S or worst > limit / 2:
        why = f"{shown}; a claim takes one, and redis.timeout_s is {limit:g} s"
        cure = "put Redis near its clients, look at SLOWLOG GET and its machine's load, or raise redis.timeout_s"
        return warn("redis.latency", server, why, cure)
    return ok("redis.latency", server, shown)


def _clock(ahead_s: float, server: str) -> Finding:
    skew = abs(ahead_s)
    shown = f"its clock is {skew:.3f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    cure = "run chrony or systemd-timesyncd on both machines (chronyc tracking, timedatectl)"
    if skew > _MAX_SKEW_S:
        return fail("redis.clock", server, f"{shown}: signatures of webhooks are refused, keys expire wrongly", cure)
    if skew > _SKEW_S:
        return warn("redis.clock", server, f"{shown}: times in logs and answers do not fit", cure)
    return ok("redis.clock", server, shown)
