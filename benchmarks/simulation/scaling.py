"""Scaling on Kubernetes on a trace: how often the replicas of three tiers change, and what becomes of the jobs.

`python -m benchmarks.simulation.scaling TRACE`: a file of arrivals as Azure publishes them (CSV, gzipped or not, of
TIMESTAMP, ContextTokens, GeneratedTokens). A day on a virtual clock: the trace's hour again and again, thinned and
multiplied by the time of day. Each tier is scaled by what deploy/kubernetes/scaling says; a worker loads its model for
three minutes, and one that is scaled in drains.

- shipped: as it is.
- killed: each worker that is scaled in dies at once instead; its jobs run again when its lease has run out.
- without windows: nothing is stabilised, and the top tier cools down at once. It shows what flapping looks like.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gzip
import heapq
import itertools
import json
import math
import random
import tomllib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import ROOT, Figures, percentile, save, say
from benchmarks.simulation.autoscaler import SYNC_S, Autoscaler, Policy, read_policy

FOLDER = ROOT / "deploy" / "kubernetes"
TIERS = ("int4", "int8", "fp8")
SHARES = (0.7, 0.2, 0.1)  # of the requests, by floor
# Assumed, of an 8B model: tokens that each answer gets in a second, prompt tokens read in one, tokens of KV cache.
WRITE_TOKENS_PER_S, READ_TOKENS_PER_S, CACHE_TOKENS = (20, 30, 60), (2_000, 4_000, 16_000), (48_000, 64_000, 256_000)
START_S = 180.0  # an image that is there, a model to load
LEASE_S = 15.0
PEAK = 3.0  # times the trace, at noon; none in a quarter of the day, around midnight
HOURS = 24


class Job(msgspec.Struct, gc=False):
    """One request: what it asks for, and how often it was begun."""

    came_s: float
    tier: int
    context: int
    tokens: int
    attempts: int = 0


class _Worker:
    """One pod: ready from some time on, with jobs that end or are taken from it."""

    def __init__(self, tier: int, ready_s: float) -> None:
        self.tier, self.ready_s = tier, ready_s
        self.jobs: dict[int, Job] = {}
        self.is_leaving = False

    def cache_use(self) -> float:
        held = sum(job.context + job.tokens for job in self.jobs.values())
        return min(1.0, held / CACHE_TOKENS[self.tier])


class Simulation:
    """Three tiers, from the first job to the last answer."""

    def __init__(
        self, jobs: Sequence[Job], policies: Sequence[Policy], *, drain_s: float, marks: Sequence[Any]
    ) -> None:
        self._jobs, self._drain_s, self._marks = jobs, drain_s, marks
        self._scalers = [Autoscaler(policy) for policy in policies]
        self._names = [list(policy.triggers) for policy in policies]
        self._workers: list[list[_Worker]] = [
            [_Worker(tier, 0) for _ in range(p.least)] for tier, p in enumerate(policies)
        ]
        self._leaving: list[_Worker] = []
        self._queues: list[deque[Job]] = [deque() for _ in policies]
        self._is_over = [False] * len(policies)
        self._running = [0] * len(policies)  # by the jobs' own tier
        self._events: list[tuple[float, int, str, Any]] = []
        self._tick = itertools.count()
        self._seen: list[dict[str, float]] = [dict.fromkeys(names, 0.0) for names in self._names]
        self.changes: list[list[tuple[float, int]]] = [[] for _ in policies]
        self.waits_s: list[list[float]] = [[] for _ in policies]
        self.ended, self.again, self.pods_s = 0, 0, [0.0] * len(policies)

    def run(self, until_s: float) -> None:
        """Run until then, and until every job has ended."""
        arrivals, now = iter(self._jobs), 0.0
        coming = next(arrivals, None)
        self._push(SYNC_S, "sync", None)
        while now < until_s or coming or self.ended < len(self._jobs):
            if coming and coming.came_s <= self._events[0][0]:
                now = coming.came_s
                self._queues[coming.tier].append(coming)
                coming = next(arrivals, None)
            else:
                now, _, kind, what = heapq.heappop(self._events)
                getattr(self, f"_on_{kind}")(now, what)
            self._claim(now)

    def _push(self, at: float, kind: str, what: object) -> None:
        heapq.heappush(self._events, (at, next(self._tick), kind, what))

    def _claim(self, now: float) -> None:
        for tier, workers in enumerate(self._workers):
            slots = self._marks[tier]["slots"]
            for source in (tier, *self._overflowing(tier)):
                queue = self._queues[source]
                while queue:
                    free = [one for one in workers if one.ready_s <= now and len(one.jobs) < slots]
                    if not free or (source != tier and not self._overflows(source)):
                        break
                    self._begin(now, min(free, key=lambda one: len(one.jobs)), queue.popleft())

    def _overflowing(self, tier: int) -> Iterator[int]:
        return (lower for lower in range(tier - 1, -1, -1) if self._queues[lower])

    def _overflows(self, tier: int) -> bool:
        depth, marks = len(self._queues[tier]), self._marks[tier]
        self._is_over[tier] = depth > (marks["low"] if self._is_over[tier] else marks["high"])
        return self._is_over[tier]

    def _begin(self, now: float, worker: _Worker, job: Job) -> None:
        if not job.attempts:
            self.waits_s[job.tier].append(now - job.came_s)
        job.attempts += 1
        number = next(self._tick)
        worker.jobs[number] = job
        self._running[job.tier] += 1
        took_s = job.context / READ_TOKENS_PER_S[worker.tier] + job.tokens / WRITE_TOKENS_PER_S[worker.tier]
        self._push(now + took_s, "end", (worker, number))

    def _on_end(self, now: float, what: tuple[_Worker, int]) -> None:
        del now
        worker, number = what
        if job := worker.jobs.pop(number, None):
            self._running[job.tier] -= 1
            self.ended += 1

    def _on_ready(self, now: float, what: None) -> None:
        del now, what  # claims follow every event

    def _on_sync(self, now: float, what: None) -> None:
        for tier, scaler in enumerate(self._scalers):
            workers = self._workers[tier]
            current, ready = len(workers), sum(one.ready_s <= now for one in workers)
            wanted = scaler.replicas(now, self._seen[tier], current, ready)
            if wanted != current:
                self.changes[tier].append((now, wanted))
            for _ in range(current, wanted):
                workers.append(_Worker(tier, now + START_S))
                self._push(now + START_S, "ready", None)
            for _ in range(wanted, current):
                self._stop(now, tier)
            self.pods_s[tier] += SYNC_S * (wanted + sum(one.tier == tier and bool(one.jobs) for one in self._leaving))
        # What the next decision sees was scraped a period before it.
        self._seen = [self._metrics(now, tier) for tier in range(len(self._queues))]
        self._push(now + SYNC_S, "sync", what)

    def _metrics(self, now: float, tier: int) -> dict[str, float]:
        queue, running = self._queues[tier], self._running[tier]
        ready = [one for one in self._workers[tier] if one.ready_s <= now]
        busy = sum(len(one.jobs) for one in (*ready, *self._leaving) if one.tier == tier)
        return {
            "load": len(queue) + running,
            "age": min(60.0, now - queue[0].came_s) if queue else 0.0,
            "cache": sum(one.cache_use() for one in ready) / len(ready) if ready else 0.0,
            "work": min(1, len(queue) + running + busy),
        }

    def _stop(self, now: float, tier: int) -> None:
        """Scale one in: a pod that is not ready first, else the youngest."""
        worker = max(self._workers[tier], key=lambda one: one.ready_s)
        self._workers[tier].remove(worker)
        self._leaving.append(worker)
        self._push(now + self._drain_s, "leave", worker)

    def _on_leave(self, now: float, worker: _Worker) -> None:
        """End what has drained for as long as it may: its jobs go back, at once or with its lease."""
        self._leaving.remove(worker)
        for job in worker.jobs.values():
            self._running[job.tier] -= 1
            self.again += 1
            self._push(now + (0 if self._drain_s else LEASE_S), "back", job)
        worker.jobs.clear()

    def _on_back(self, now: float, job: Job) -> None:
        del now
        self._queues[job.tier].appendleft(job)


def figures_of(simulation: Simulation, jobs: Sequence[Job]) -> Figures:
    """Return what came of each tier and of the jobs."""
    tiers = {}
    for tier, name in enumerate(TIERS):
        changes = simulation.changes[tier]
        tiers[name] = {
            "changes": len(changes),
            "changes_in_an_hour": _most_in_an_hour([at for at, _ in changes]),
            "reversals_in_an_hour": _most_in_an_hour(_reversals(changes)),
            "most_workers": max((count for _, count in changes), default=0),
            "worker_hours": round(simulation.pods_s[tier] / 3600, 1),
            "wait_p50_s": round(percentile(simulation.waits_s[tier], 0.5), 1),
            "wait_p95_s": round(percentile(simulation.waits_s[tier], 0.95), 1),
            "wait_most_s": round(max(simulation.waits_s[tier]), 1),
        }
    most = max(job.attempts for job in jobs)
    return {"jobs": len(jobs), "ended": simulation.ended, "again": simulation.again, "attempts": most, "tiers": tiers}


def _reversals(changes: Sequence[tuple[float, int]]) -> list[float]:
    """Return when a change went the other way than the one before."""
    steps = [(at, now > before) for (at, now), (_, before) in zip(changes[1:], changes, strict=False)]
    return [at for (at, is_up), (_, was_up) in zip(steps[1:], steps, strict=False) if is_up != was_up]


def _most_in_an_hour(times: Sequence[float]) -> int:
    return max((sum(at <= one < at + 3600 for one in times) for at in times), default=0)


def read_trace(path: Path) -> list[tuple[float, int, int]]:
    """Read a trace as seconds from its begin, prompt tokens and generated tokens."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.DictReader(data.decode().splitlines()))
    times = [datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    return [
        ((at - times[0]).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for at, row in zip(times, rows, strict=True)
    ]


def day_of(trace: Sequence[tuple[float, int, int]], hours: float = HOURS, peak: float = PEAK) -> list[Job]:
    """Return a day's jobs: the trace again and again, thinned and multiplied by the time of day."""
    chance = random.Random(0)  # noqa: S311
    span_s = trace[-1][0] + 1
    jobs = []
    for round_no in range(math.ceil(hours * 3600 / span_s)):
        for at, context, tokens in trace:
            now = round_no * span_s + at
            rate = peak * max(0, 0.45 - 0.55 * math.cos(2 * math.pi * now / (hours * 3600)))
            for _ in range(int(rate + chance.random())):
                (tier,) = chance.choices(range(len(TIERS)), SHARES)
                jobs.append(Job(now + chance.random(), tier, context, tokens))
    return sorted((job for job in jobs if job.came_s < hours * 3600), key=lambda job: job.came_s)


def simulate(jobs: Sequence[Job], name: str, hours: float = HOURS) -> Figures:
    """Run one of the ways of scaling over the jobs, which must be new ones, and for so long."""
    settings = tomllib.loads((FOLDER / "base" / "bitladder.toml").read_text(encoding="utf-8"))
    (model,) = settings["models"].values()
    policies = [read_policy(FOLDER / "scaling" / f"{tier}.yaml") for tier in TIERS]
    if name == "without windows":
        free = {"cooldown_s": 0, "down_window_s": 0, "down_step": 99, "up_step": 99}
        policies = [msgspec.structs.replace(policy, **free) for policy in policies]
    drain_s = 0 if name == "killed" else settings["worker"]["drain_grace_s"]
    simulation = Simulation(jobs, policies, drain_s=drain_s, marks=model["tiers"])
    simulation.run(hours * 3600)
    return figures_of(simulation, jobs)


def main() -> None:
    """Simulate, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--short", action="store_true", help="three hours instead of a day")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench", help="folder for the JSON file")
    options = parser.parse_args()
    trace, hours = read_trace(options.trace), 3 if options.short else HOURS
    rows = {}
    for name in ("shipped", "killed", "without windows"):
        rows[name] = simulate(day_of(trace, hours), name, hours)
        say(f"{name}: {json.dumps(rows[name])}")
    save("scaling", {"rows": rows}, options)


if __name__ == "__main__":
    main()
