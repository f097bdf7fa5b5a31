"""bitladder's queue beside seven others and the floor, on one Valkey, in turns: `python -m benchmarks.queue`.

Each system runs in an environment of its own (`make bench-env`), with one worker process and jobs that do nothing:
submit one by one and in bulk with the worker stopped, drain what was queued, then one job at a time to an idle worker.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import redis

from benchmarks.harness import ROOT, Figures, arguments, ask, percentile, process, save, say, spread_of, target, valkey
from benchmarks.peers.base import PROMPT_BYTES, WARM_UP


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One queue with one choice of settings."""

    name: str
    module: str
    variant: str = ""
    jobs_share: float = 1.0  # slow ones get fewer jobs, or a run would take hours
    is_peer: bool = True

    @property
    def python(self) -> str:
        """The interpreter of its environment."""
        own = ROOT / ".venv-bench" / self.module / "bin" / "python"
        return str(own) if self.is_peer else sys.executable


@dataclass(slots=True)
class Counts:
    """How much is measured."""

    repetitions: int = 5
    one_by_one: int = 1_000
    bulk: int = 6_000
    latencies: int = 100


SYSTEMS = (
    System(name="bitladder", module="bitladder", is_peer=False),
    System(name="floor (redis-py, two scripts)", module="raw", is_peer=False),
    System(name="RQ SimpleWorker", module="rq", variant="simple", jobs_share=0.3),
    System(name="RQ Worker (fork)", module="rq", variant="fork", jobs_share=0.05),
    System(name="arq", module="arq"),
    System(name="SAQ", module="saq"),
    System(name="taskiq (list)", module="taskiq"),
    System(name="dramatiq", module="dramatiq"),
    System(name="Celery (prefork)", module="celery"),
    System(name="huey (8 threads)", module="huey"),
)
# The server may still be freeing what a drain has left.
_SETTLE_S = 0.5


def main() -> None:
    """Measure all systems in turns and write the figures."""
    options = arguments(__doc__)
    counts = Counts(repetitions=1, one_by_one=500, bulk=3_000, latencies=50) if options.short else Counts()
    systems = [system for system in SYSTEMS if options.only in system.name]
    samples: dict[str, list[Figures]] = {system.name: [] for system in systems}
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as url:
        for repetition in range(counts.repetitions):
            for system in systems:
                figures = measure(system, counts, url)
                samples[system.name].append(figures)
                say(f"{repetition + 1}/{counts.repetitions} {system.name}: drain {figures['drain_per_s']:,.0f}/s")
    rows = {name: spread_of(its) for name, its in samples.items()}
    save("queue", {"counts": asdict(counts), "rows": rows, "targets": targets(rows)}, options)


def measure(system: System, counts: Counts, url: str) -> Figures:
    """Measure one system once, from an empty server."""
    environment = {"BENCH_REDIS_URL": url, "BENCH_VARIANT": system.variant}
    adapter = [system.python, "-m", f"benchmarks.peers.{system.module}"]
    client = redis.Redis.from_url(url)
    _empty(client)
    one = ask([*adapter, "enqueue", str(counts.one_by_one)], environment)

    _empty(client)
    empty = _memory(client)
    jobs = max(200, int(counts.bulk * system.jobs_share))
    bulk = ask([*adapter, "bulk", str(jobs)], environment)
    stored = jobs + min(WARM_UP, jobs)
    queued_bytes = (_memory(client) - empty) / stored

    with process([*adapter, "worker"], environment) as worker:
        drain = ask([*adapter, "drain", str(stored), "--worker-pid", str(worker.pid)], environment)
        latencies_ms = ask([*adapter, "latency", str(counts.latencies)], environment)["ms"]
    time.sleep(_SETTLE_S)  # without the worker: its connections' buffers are not the jobs'
    finished_bytes = (_memory(client) - empty) / (stored + counts.latencies)
    client.close()
    return {
        "enqueue_per_s": one["jobs"] / one["seconds"],
        "producer_us": one["cpu_s"] / one["jobs"] * 1e6,
        "bulk_per_s": bulk["jobs"] / bulk["seconds"],
        "drain_per_s": drain["jobs"] / drain["seconds"],
        "worker_us": drain["cpu_s"] / drain["jobs"] * 1e6,
        "server_us": drain["server_cpu_s"] / drain["jobs"] * 1e6,
        "enqueue_commands": bulk["commands"] / bulk["jobs"],
        "run_commands": drain["commands"] / drain["jobs"],
        "run_reads": drain["reads"] / drain["jobs"],
        "queued_bytes": queued_bytes,
        "finished_bytes": finished_bytes,
        "latency_p50_ms": statistics.median(latencies_ms),
        "latency_p99_ms": percentile(latencies_ms, 0.99),
    }


def _empty(client: redis.Redis) -> None:
    # SYNC: what is freed later would be counted against the next system.
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]  # redis-py


def _memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def targets(rows: Mapping[str, Figures]) -> list[Figures]:
    """Hold bitladder against the best of the peers, by medians of the same run."""
    if "bitladder" not in rows:
        return []
    peers = [system.name for system in SYSTEMS if system.is_peer and system.name in rows]
    own = {key: row["median"] for key, row in rows["bitladder"].items()}
    found = [
        target("Redis commands per job while running", own["run_commands"], 12, at_most=True),
        target(
            "bytes of a queued job with a 1 KiB prompt", own["queued_bytes"], 1.4 * PROMPT_BYTES + 600, at_most=True
        ),
        target("bytes of a finished job beyond its text", own["finished_bytes"], 1_500, at_most=True),
        target("p50 submit to result, ms", own["latency_p50_ms"], 2, at_most=True),
    ]
    if not peers:
        return found

    def best(key: str) -> float:
        return max(float(rows[name][key]["median"]) for name in peers)

    fastest_ms = min(rows[name]["latency_p50_ms"]["median"] for name in peers)
    found += [
        target("drain, of the best peer's", own["drain_per_s"] / best("drain_per_s"), 4),
        target("bulk enqueue, of the best peer's", own["bulk_per_s"] / best("bulk_per_s"), 2),
        target("enqueue one by one, of the best peer's", own["enqueue_per_s"] / best("enqueue_per_s"), 1),
        target("p50 submit to result, of the best peer's", own["latency_p50_ms"] / fastest_ms, 1, at_most=True),
    ]
    if "RQ SimpleWorker" in rows:
        simple = rows["RQ SimpleWorker"]["drain_per_s"]["median"]
        found.append(target("drain, of RQ SimpleWorker's", own["drain_per_s"] / simple, 25))
    return found


if __name__ == "__main__":
    main()
