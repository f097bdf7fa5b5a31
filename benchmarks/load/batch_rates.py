"""What ids that are known before cost a producer, and a file a run: `python -m benchmarks.load.batch_rates`.

In turns: `submit_many` and `Batch.submit`, with no worker; then 50,000 echo lines to their answers, by `submit_many`
and `as_completed`, by a batch that flows, and by `bitladder batch run` from a file to a file, its start included. CPU
time is that of the producer, with its children.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from benchmarks.harness import CONFIG, process, say, valkey
from bitladder.producer import Producer
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings

LINES, ROUNDS = 50_000, 3
Bodies = list[dict[str, Any]]


def main() -> None:
    """Measure and print medians with the least and the most."""
    bodies = [
        {"model": "bench", "prompt": f"What is the capital of country {n}?", "max_tokens": 1} for n in range(LINES)
    ]
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as url:
        settings = load_settings(CONFIG, environ={}, flags={"redis.url": url}).settings
        client = redis.Redis.from_url(url)
        with Producer(settings) as producer:
            show("submitted a second", client, {
                "submit_many": lambda: producer.submit_many(bodies),
                "Batch.submit": lambda: producer.batch(bodies).submit(),
            })  # fmt: skip
            command = [sys.executable, "-P", "-m", "workers", "--tier", "int4", "--config", CONFIG]
            client.flushall()
            with process(command, {"BITLADDER_REDIS__URL": url}):
                show("answered a second", client, {
                    "submit_many, as_completed": lambda: drained(producer.as_completed(producer.submit_many(bodies))),
                    "Batch.as_completed": lambda: drained(producer.batch(bodies).as_completed()),
                    "bitladder batch run": lambda: run_file(Path(folder), settings, bodies),
                }, flush=False)  # fmt: skip


def show(what: str, client: redis.Redis, ways: dict[str, Callable[[], object]], *, flush: bool = True) -> None:
    """Measure ways in turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            if flush:
                client.flushall()
            start, before = time.perf_counter(), cpu_s()
            way()
            rates[name].append(LINES / (time.perf_counter() - start))
            used[name].append((cpu_s() - before) / LINES * 1e6)
    for name, measured in rates.items():
        spread = f"{statistics.median(measured):,.0f} ({min(measured):,.0f}-{max(measured):,.0f})"
        say(f"{name}: {spread} {what}, {statistics.median(used[name]):.1f} us of CPU each")


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def drained(completed: Any) -> None:  # noqa: ANN401  (an iterator of outcomes)
    ended = sum(done.outcome.state == "finished" for done in completed)
    if ended != LINES:
        raise RuntimeError(f"{ended} of {LINES} jobs have finished")


def run_file(folder: Path, settings: Settings, bodies: Bodies) -> None:
    """Run a file, as a user does."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    if not source.exists():
        source.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
    command = [sys.executable, "-m", "bitladder.cli.main", "batch", "run", str(source), "-o", str(output), "--restart"]
    environment = {"BITLADDER_REDIS__URL": settings.redis.url, "BITLADDER_CONFIG": CONFIG}
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)  # noqa: S603


if __name__ == "__main__":
    main()
