"""What every queue's adapter offers, and the command line around it. Standard library and redis-py only."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import redis

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")  # noqa: TID251  (an adapter is its own program)
PROMPT_BYTES = 1024
WARM_UP = 100
# A queue that ends no job for so long has lost some.
STALLED_S = 30
_WORDS = "the quick brown fox jumps over a lazy dog while seven wizards box quietly in the evening rain "


class Peer(Protocol):
    """One queue: its producer, its worker, and how its finished jobs are counted."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        """Submit one by one: each is acknowledged by Redis before the next is sent."""

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        """Submit all by the best way the library has for many jobs."""

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        """Submit one job at a time to an idle worker, wait for its result with the library's own call, pause, repeat.

        Returns milliseconds from the call that submits to the result in hand.
        """

    def worker(self) -> Sequence[str]:
        """Return the command line of one worker process, as its documentation starts it."""

    def done(self, client: redis.Redis) -> int:
        """Return how many jobs have a stored result; one cheap command, because it is polled."""


def prompts(count: int) -> list[str]:
    """Return `count` different prompts of PROMPT_BYTES bytes each."""
    filler = _WORDS * (PROMPT_BYTES // len(_WORDS) + 1)
    return [f"{number:08d} {filler}"[:PROMPT_BYTES] for number in range(count)]


def main(peer: Peer) -> None:
    """Run one measurement and print it as one line of JSON; `worker` becomes the worker instead."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("enqueue", "bulk", "latency", "drain", "worker"))
    parser.add_argument("count", type=int, nargs="?", default=0)
    parser.add_argument("--pause-s", type=float, default=0.02)
    parser.add_argument("--worker-pid", type=int, help="drain: whose CPU is measured, children included")
    args = parser.parse_args()
    if args.what == "worker":
        command = list(peer.worker())
        os.execvp(command[0], command)  # noqa: S606  (the adapter's own command line)
    if args.what == "drain":
        figures = _drain(peer, args.count, args.worker_pid)
    elif args.what == "latency":
        figures = {"ms": peer.latencies_ms(prompts(args.count), args.pause_s)}
    else:
        figures = _timed(peer.enqueue if args.what == "enqueue" else peer.enqueue_bulk, args.count)
    sys.stdout.write(json.dumps(figures) + "\n")


def _timed(submit: Callable[[Sequence[str]], None], count: int) -> dict[str, Any]:
    client = redis.Redis.from_url(URL)
    submit(prompts(min(WARM_UP, count)))  # connections, scripts and imports are not what is measured
    jobs = prompts(count)
    before, used_s, start = _server(client), cpu_s(os.getpid()), time.perf_counter()
    submit(jobs)
    seconds = time.perf_counter() - start
    return {"jobs": count, "seconds": seconds, "cpu_s": cpu_s(os.getpid()) - used_s} | _since(client, before)


def _drain(peer: Peer, count: int, worker: int) -> dict[str, Any]:
    """Measure a worker from 2 % of the jobs done to the last one."""
    client, polls = redis.Redis.from_url(URL), 0
    while peer.done(client) < count // 50:
        time.sleep(0.002)
    before, used_s, start, begun = _server(client), cpu_s(worker), time.perf_counter(), peer.done(client)
    last, changed = begun, start
    while (done := peer.done(client)) < count:
        polls += 1
        now = time.perf_counter()
        last, changed = done, now if done != last else changed
        if now - changed > STALLED_S:
            raise RuntimeError(f"{count} jobs must be done, got {done} and no more in {STALLED_S} s")
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    figures = _since(client, before)
    figures["commands"] -= polls
    figures["reads"] -= polls
    return {"jobs": done - begun, "seconds": seconds, "cpu_s": cpu_s(worker) - used_s} | figures


def _server(client: redis.Redis) -> dict[str, float]:
    """Read the server's own counters: commands (also those inside scripts), reads of its sockets, CPU."""
    stats, cpu, calls = client.info("stats"), client.info("cpu"), client.info("commandstats")
    return {
        "commands": sum(row["calls"] for row in calls.values()),
        "reads": stats["total_reads_processed"],
        "server_cpu_s": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    }


def _since(client: redis.Redis, before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in _server(client).items()}


def cpu_s(root: int) -> float:
    """Return the CPU time of a process, its living descendants and the children it has already waited for."""
    times, parents = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                times[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(times.get(pid, 0.0) for pid in family)
