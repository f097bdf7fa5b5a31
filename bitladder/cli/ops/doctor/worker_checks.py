"""Workers as Redis lists them: tiers without one, lost leases, engines that do not answer, and mixed versions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.exceptions import NoPermissionError, RedisError

from bitladder import __version__
from bitladder.cli.ops.doctor.finding import Examined, Finding, ok, skipped, warn
from bitladder.cli.ops.doctor.redis_checks import server_name
from bitladder.errors import ConfigError
from bitladder.queue.calls.worker_report import read_report
from bitladder.queue.server.connection import connect

_MAX_WORKERS = 1000
_FIELDS = ("model", "tier", "version", "ready", "hostname", "pid")
_MAX_CHARS = 80


class Serves(NamedTuple):
    """What a worker answers by."""

    checkpoint: str  # as the settings name it; or the engine, where that has none
    release: int | None = None

    def __str__(self) -> str:
        return f"{self.checkpoint} of release {self.release}" if self.release else self.checkpoint


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker's entry."""

    name: str
    left_s: float  # of its lease
    model: str = ""
    tier: str = ""
    version: str = ""
    ready: str = ""
    hostname: str = ""
    pid: str = ""
    serves: Serves | None = None  # None: it is of an earlier version

    @property
    def place(self) -> str:
        return f"{self.name} ({self.hostname or 'unknown host'}, pid {self.pid or 'unknown'})"


def check_workers(examined: Examined) -> list[Finding]:
    """Return what is to be said of the workers; the network and the processes themselves are not looked at."""
    return [finding for part in examined.at_each_redis() for finding in _at(part)]


def _at(examined: Examined) -> list[Finding]:
    server = server_name(examined.settings.redis)
    try:
        workers = asyncio.run(_read(examined))
    except NoPermissionError:
        user = examined.settings.redis.username
        return [skipped("worker.live", server, f"the user {user} may not read the workers' entries; admin may")]
    except (RedisError, OSError, ConfigError) as error:
        return [skipped("worker.live", server, f"Redis cannot be asked: {error}")]
    models, engine = examined.settings.models, examined.settings.worker.engine
    expected = {
        (name, tier.name): Serves(
            tier.checkpoint if engine == "vllm" else engine, tier.published.version if tier.published else None
        )
        for name, model in models.items()
        for tier in model.tiers
    }
    findings = list(judge_workers(workers, {name: model.ladder for name, model in models.items()}, server))
    return [*findings, judge_checkpoints(workers, expected)] if workers else findings


def judge_workers(
    workers: Sequence[Worker], ladders: Mapping[str, Sequence[str]], server: str = "Redis"
) -> Iterator[Finding]:
    """Yield what is to be said of these workers of these ladders, which are at one Redis."""
    if not workers:
        yield skipped("worker.live", f"all tiers of {', '.join(ladders)}", "no worker has registered")
        return
    live = [worker for worker in workers if worker.left_s > 0]
    for model, ladder in ladders.items():
        yield _of_model(model, ladder, live)
    if expired := [worker.place for worker in workers if worker.left_s <= 0]:
        text = f"the leases of {len(expired)} workers ran out, and nobody has taken their jobs yet: {_some(expired)}"
        yield warn("worker.leases", server, text, "another worker or an intake takes them; look at those machines")
    else:
        yield ok("worker.leases", server, f"{len(live)} workers hold their leases")
    yield _versions(live)
    if strange := [worker.place for worker in live if worker.tier not in ladders.get(worker.model, ())]:
        text = f"serve a model or a tier that this configuration does not have: {_some(strange)}"
        yield warn("worker.tiers", "configuration", text, "give all processes the same bitladder.toml")


def _of_model(model: str, ladder: Sequence[str], live: Sequence[Worker]) -> Finding:
    ready = {tier: 0 for tier in ladder}
    starting: list[str] = []
    for worker in live:
        if worker.model == model and worker.tier in ready:
            ready[worker.tier] += worker.ready == "1"
            starting += [] if worker.ready == "1" else [worker.place]
    shown = ", ".join(f"{tier} {count}" for tier, count in ready.items())
    if missing := [tier for tier, count in ready.items() if not count]:
        text = f"no live worker of {', '.join(missing)} ({shown})"
        text += f"; not ready: {_some(starting)}" if starting else ""
        cure = f"bitladder worker --model {model} --tier {missing[0]}, and its log says why an engine does not answer"
        return warn("worker.live", model, text, cure)
    if starting:
        text = f"{shown}; not ready: {_some(starting)}"
        return warn("worker.live", model, text, "its log says whether the engine still starts or is broken")
    return ok("worker.live", model, shown)


def _versions(live: Sequence[Worker]) -> Finding:
    here, versions = f"bitladder {__version__}", sorted({worker.version for worker in live})
    if [here] == versions or not versions:
        return ok("worker.versions", "live workers", f"all run {here}, as this command")
    text = f"{', '.join(versions)}; this command is {here}"
    cure = "finish the upgrade: restart the workers of the older version (docs/operating.md, Upgrades)"
    return warn("worker.versions", "live workers", text, cure)


def judge_checkpoints(workers: Sequence[Worker], expected: Mapping[tuple[str, str], Serves]) -> Finding:
    """Hold what live workers answer by against this configuration and the release in force."""
    pairs = [(worker, expected.get((worker.model, worker.tier))) for worker in workers if worker.left_s > 0]
    others = [
        f"{worker.place}: {worker.serves}, not {right}"
        for worker, right in pairs
        if right and worker.serves and worker.serves != right
    ]
    if not others:
        return ok("worker.checkpoints", "live workers", "those that say so serve what this configuration says")
    text = f"{len(others)} serve something else than this configuration says: {_some(others)}"
    cure = "a worker that does not change by itself says in its log what it refused; restart it with this configuration"
    return warn("worker.checkpoints", "live workers", text, cure)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def _read(examined: Examined) -> list[Worker]:
    client = connect(examined.settings.redis)
    try:
        seconds, _ = await client.time()
        leases: list[Any] = await client.zrange("bl:workers", 0, _MAX_WORKERS - 1, withscores=True)
        async with client.pipeline(transaction=False) as pipeline:
            for name, _ in leases:
                pipeline.hmget(b"rq:worker:" + name, [*_FIELDS, "report"])
            rows = await pipeline.execute()
        return [_worker(name, end_ms / 1000 - seconds, row) for (name, end_ms), row in zip(leases, rows, strict=True)]
    finally:
        await client.aclose()


def _worker(name: bytes, left_s: float, row: list[Any]) -> Worker:
    *values, raw = row
    texts = {
        field: (value or b"").decode(errors="replace")[:_MAX_CHARS]
        for field, value in zip(_FIELDS, values, strict=True)
    }
    report = read_report(raw)
    serves = Serves(report.checkpoint, report.release) if report and report.checkpoint else None
    return Worker(name.decode(errors="replace")[:_MAX_CHARS], left_s, serves=serves, **texts)
