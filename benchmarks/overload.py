"""Three times more than can be done, with admission and without: `python -m benchmarks.overload`.

Two echo workers whose capacity is known and measured; clients that wait for their answer and have a deadline.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

from benchmarks.harness import Figures, arguments, ask, percentile, save, say, target, wait_for
from benchmarks.load.open_loop import NO_ANSWER
from benchmarks.servers.stacks import EXAMPLE, Running, stack
from bitladder.producer import Producer
from bitladder.queue_name import Lane
from bitladder.settings.load import load_settings

TIER = "int4"
WORKERS, SLOTS, JOB_MS = 2, 8, 200  # 80 jobs a second, if the workers never waited for anything
DEADLINE_MS = 4000
TIMES = 3
# Outcomes are kept for so long here, so that a run reaches the state in which as many expire as come.
RESULT_TTL_S = 10
# Until then the queue fills, and the first outcomes have not expired.
SETTLED_S = 15
REFUSALS = (429, 503)

ENVIRONMENT = {
    "BITLADDER_CONFIG": EXAMPLE,
    "BITLADDER_WORKER__ENGINE": "echo",
    "BITLADDER_ECHO__TTFT_MS": str(JOB_MS),
    "BITLADDER_QUEUE__RESULT_TTL_S": str(RESULT_TTL_S),
    f"BITLADDER_MODELS__SMOLLM2__TIERS__{TIER.upper()}__SLOTS": str(SLOTS),
}


def main() -> None:
    """Measure and write the figures."""
    options = arguments(__doc__)
    seconds = 30 if options.short else 120
    rows = {
        "with admission": measured(seconds, admission=True),
        "without": measured(seconds, admission=False),
    }
    its = rows["with admission"]
    targets = [
        target("answers in time, of the capacity", its["goodput"], 0.95),
        target("accepted requests answered in time", its["in_time"], 1),
        target("refusal, p99, ms", its["refusal_p99_ms"], 100, at_most=True),
        target("Redis memory, end of start", its["redis_mb_end"] / its["redis_mb"], 1.1, at_most=True),
        target("intake memory, end of start", its["intake_mb_end"] / its["intake_mb"], 1.1, at_most=True),
        target("worker memory, end of start", its["worker_mb_end"] / its["worker_mb"], 1.1, at_most=True),
    ]
    save("overload", {"seconds": seconds, "deadline_ms": DEADLINE_MS, "rows": rows, "targets": targets}, options)


def measured(seconds: float, *, admission: bool) -> Figures:
    """Offer three times the capacity and look what becomes of it."""
    environment = ENVIRONMENT | {"BITLADDER_INTAKE__ADMISSION": str(admission).lower()}
    with stack(TIER, environment, workers=WORKERS) as running, ThreadPoolExecutor() as threads:
        client = redis.Redis.from_url(running.redis_url)
        per_s = capacity(running, client)
        url = f"{running.urls[0]}/v1/completions"
        command = [sys.executable, "-m", "benchmarks.load.open_loop", url, str(TIMES * per_s), str(seconds)]
        load = threads.submit(ask, [*command, str(DEADLINE_MS), "1"], {})
        time.sleep(SETTLED_S)
        before = memory(running, client)
        time.sleep(seconds - SETTLED_S - 1)
        after = memory(running, client)
        rows = load.result()["rows"]
    figures = {"capacity_per_s": per_s} | of_requests(rows, seconds, per_s) | before
    figures |= {f"{name}_end": value for name, value in after.items()}
    say(f"admission {admission}: {figures}")
    return figures


def capacity(running: Running, client: redis.Redis) -> float:
    """Return how many jobs a second the workers end while enough of them wait."""
    settings = load_settings(
        EXAMPLE, environ={}, flags={"redis.url": running.redis_url, "policy.name": f"fixed:{TIER}"}
    ).settings
    count = 10 * WORKERS * SLOTS * 1000 // JOB_MS

    def served() -> int:
        return sum(int(value) for value in client.hvals("bl:served:smollm2"))

    body = {"model": "smollm2", "prompt": "how much", "max_tokens": 1}
    with Producer(settings) as producer:
        producer.submit_many((body for _ in range(count)), lane=Lane.NORMAL)
    wait_for(lambda: served() > count // 10, "the workers work")
    start, first = time.perf_counter(), served()
    wait_for(lambda: served() > count * 9 // 10, "most jobs are done", 120)
    per_s = (served() - first) / (time.perf_counter() - start)
    wait_for(lambda: served() >= count, "all jobs are done")
    return per_s


def of_requests(rows: list[list[float]], seconds: float, capacity_per_s: float) -> Figures:
    """Return what became of the requests."""
    within_s = DEADLINE_MS / 1000
    accepted = [row for row in rows if row[1] not in REFUSALS]
    refused = [row for row in rows if row[1] in REFUSALS]
    in_time = [row for row in accepted if row[1] == 200 and row[2] <= within_s]
    steady = [row for row in in_time if within_s <= row[0] + row[2] <= seconds]
    refusal_ms = [row[2] * 1000 for row in refused] or [0.0]
    return {
        "offered_per_s": len(rows) / seconds,
        "goodput": len(steady) / (seconds - within_s) / capacity_per_s,
        "in_time": len(in_time) / len(accepted),
        "late": len(accepted) - len(in_time),
        "no_answer": sum(row[1] == NO_ANSWER for row in rows),
        "answer_p50_ms": percentile([row[2] * 1000 for row in accepted], 0.5),
        "refused": len(refused) / len(rows),
        "refusal_p50_ms": percentile(refusal_ms, 0.5),
        "refusal_p99_ms": percentile(refusal_ms, 0.99),
        "retry_after_s": statistics.median([row[3] for row in refused] or [0.0]),
    }


def memory(running: Running, client: redis.Redis) -> Figures:
    """Return what Redis uses and what the processes hold, in MB; of the workers the largest."""
    kinds: dict[str, list[float]] = {"intake": [], "worker": []}
    for name, pid in running.pids.items():
        kinds.setdefault(name.split(" ")[0], []).append(resident_mb(pid))
    return {
        "redis_mb": int(client.info("memory")["used_memory"]) / 1e6,
        "intake_mb": max(kinds["intake"]),
        "worker_mb": max(kinds["worker"]),
    }


def resident_mb(pid: int) -> float:
    """Return the memory a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return kib * 1024 / 1e6


if __name__ == "__main__":
    main()
