"""A file of requests as a batch of one intake, and by `submit_many`: `python -m benchmarks.batches`.

Both from the input to the last result, with one echo worker. What a batch costs beside a producer is that it is read,
checked, routed by the intake, and written to files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.batches.batch_client import batch_input, run_as_batch
from benchmarks.harness import CONFIG, Figures, arguments, save, say, spread_of, target
from benchmarks.peers.base import cpu_s, prompts
from benchmarks.servers.stacks import Running, stack
from bitladder.producer import Producer
from bitladder.settings.load import load_settings

LINES, ROUNDS = 50_000, 1
SHORT_LINES = 5_000
ENDPOINT = "/v1/completions"


def bodies(count: int) -> Iterator[dict[str, Any]]:
    texts = prompts(100)
    for number in range(count):
        yield {"model": "bench", "prompt": f"{number} {texts[number % 100]}", "max_tokens": 4}


def by_batch(running: Running, count: int) -> Figures:
    """Run them as a file; the time begins with the upload and ends with the last byte of the results."""
    _, taken_s = run_as_batch(running.urls[0], ENDPOINT, batch_input(ENDPOINT, bodies(count)))
    return {"lines_per_s": count / taken_s}


def by_producer(running: Running, count: int) -> Figures:
    """Submit the same requests straight into Redis, and wait for all outcomes."""
    settings = load_settings(CONFIG, environ={}, flags={"redis.url": running.redis_url}).settings
    with Producer(settings) as producer:
        start_s = time.perf_counter()
        answered = sum(1 for _ in producer.as_completed(producer.submit_many(bodies(count))))
        taken_s = time.perf_counter() - start_s
    if answered != count:
        raise RuntimeError(f"{answered} of {count} outcomes")
    return {"lines_per_s": count / taken_s}


def measured(running: Running, count: int, way: str) -> Figures:
    before = {name: cpu_s(pid) for name, pid in running.pids.items()}
    seen = (by_batch if way == "batch" else by_producer)(running, count)
    used: Mapping[str, float] = {name: cpu_s(pid) - before[name] for name, pid in running.pids.items()}
    seen["intake_mib"] = _peak_mib(running.pids["intake 1"])
    return seen | {f"cpu_us_{name.partition(' ')[0]}": seconds / count * 1e6 for name, seconds in used.items()}


def _peak_mib(pid: int) -> float:
    """Return the most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    options = arguments(__doc__)
    count, rounds = (SHORT_LINES, 1) if options.short else (LINES, ROUNDS)
    seen: dict[str, list[Figures]] = {"submit_many": [], "batch": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"BITLADDER_CONFIG": CONFIG, "BITLADDER_FILES__STORE": str(Path(folder) / "files")}
        for _ in range(rounds):
            for way, figures in seen.items():
                with stack("int4", environment) as running:  # each begins with an empty Redis
                    figures.append(measured(running, count, way))
                say(f"{way}: {figures[-1]}")
    rows = {way: spread_of(figures) for way, figures in seen.items()}
    ratio = rows["batch"]["lines_per_s"]["median"] / rows["submit_many"]["lines_per_s"]["median"]
    targets = [target(f"{count:,} lines by a batch, of submit_many", ratio, 0.5)]
    save("batches", {"rows": rows, "targets": targets}, options)


if __name__ == "__main__":
    main()
