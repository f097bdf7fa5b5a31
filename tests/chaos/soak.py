"""Soak: run everything for long, and see whether anything grows that should not.

`python -m tests.chaos.soak --minutes 30 --seed 7` prints the seed and a table of slopes per hour, and writes
var/soak/<seed>.json. Settings are those that ship, but for two that let keys go within the run: SHORT_TTL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.checks.leftovers import leftovers
from tests.chaos.checks.timeline import Timeline
from tests.chaos.faults import Fault, Faults
from tests.chaos.run import Plan, load
from tests.chaos.samples import PER_JOB, Measure, Samples, family
from tests.chaos.slopes import Slope, Verdict
from tests.chaos.system.scene import Kind, Scene, scene
from tests.chaos.traffic.history import History
from tests.chaos.traffic.orders import Order, draw_left, orders
from tests.conftest import ROOT

# As they ship, an outcome stays for an hour and an idempotency key for a day longer.
SHORT_TTL = {"queue.result_ttl_s": 60, "queue.max_wait_s": 60}
CLIENTS, LONG_CLIENTS, LEAVERS = 24, 4, 4
SAMPLE_S = 3.0
CRASH_S = 40.0  # between two ends of a worker or of connections
DEAD_S = 20.0  # between two looks at the dead letters
# Memory is still being taken for the first time: this long, or this share of a short run.
WARM_UP_S, WARM_UP_SHARE = 300.0, 1 / 3
IDLE_S = 120.0  # jobs that nobody awaits any more come to their end
SETTLE_S = 5.0  # Redis removes what is over a moment later


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """How long, and with what."""

    minutes: float
    settings: Mapping[str, Any] = field(default_factory=lambda: SHORT_TTL)
    environment: Mapping[str, str] = field(default_factory=dict)  # more, of each process

    @property
    def warm_up_s(self) -> float:
        return min(WARM_UP_S, self.minutes * 60 * WARM_UP_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did and found."""

    seed: int
    minutes: float
    warm_up_s: float
    settings: Mapping[str, Any]  # that do not ship so
    machine: Mapping[str, float]  # how busy it was with all that runs on it
    accepted: int
    answers: Mapping[str, int]
    did: Mapping[str, int]
    faults: Mapping[str, int]
    starts: Mapping[str, int]
    slopes: list[dict[str, Any]]
    found: list[str]


async def soak(its_kind: Soak, seed: int, folder: Path) -> Report:
    """Run once; all that the processes write goes into `folder`."""
    history, samples, end_s, busy = History(), Samples(), its_kind.minutes * 60, os.getloadavg()[0]
    plan = Plan(jobs=sys.maxsize, clients=CLIENTS, long_clients=LONG_CLIENTS, max_s=end_s, script=_crashes(its_kind))
    async with scene(folder, Kind(settings=its_kind.settings, environment=its_kind.environment)) as its:
        faults = Faults(its, Timeline(), history.is_open, random.Random(seed))
        left = orders(seed, 4, draw_left)
        works = [samples.take(its, history, SAMPLE_S), _tend_dead_letters(its, history)]
        works += [_leave(its, left, history, random.Random(seed + number)) for number in range(LEAVERS)]
        async with _beside(works):
            await load(its, plan, history, faults, seed)
        found = [*history.found, *await _settled(its)]
    samples.write(folder / "samples.jsonl")
    slopes = samples.slopes(its_kind.warm_up_s, _longest_s(its))
    found += [f"GROWS: {_name(*of)}" for of, its_slope in slopes.items() if its_slope.verdict is Verdict.GROWS]
    return Report(
        seed=seed,
        minutes=its_kind.minutes,
        warm_up_s=its_kind.warm_up_s,
        settings=its_kind.settings,
        machine={
            "cores": os.cpu_count() or 0,
            "load before": busy,
            "load after": os.getloadavg()[0],
            "nice": os.nice(0),
        },
        accepted=history.accepted_count(),
        answers=dict(sorted(history.answers.items())),
        did=dict(sorted(history.count.items())),
        faults=dict(sorted(faults.count.items())),
        starts={service.name: len(service.lives) for service in its.fleet.all},
        slopes=[_row(*of, its_slope) for of, its_slope in slopes.items()],
        found=[*found, *its.fleet.defects()],
    )


def _crashes(kind: Soak) -> Callable[[Faults], Sequence[tuple[float, Fault]]]:
    """End the last worker, or connections to Redis, again and again; the other processes live through it all.

    All connections are cut while it warms up only: later that would hide how they grow.
    """

    def script(faults: Faults) -> Sequence[tuple[float, Fault]]:
        early, late = (
            cycle((faults.cut, faults.kill_highest_worker)),
            cycle((faults.kill_highest_worker, faults.cut_worker)),
        )
        times = map(float, range(round(CRASH_S / 2), round(kind.minutes * 60), round(CRASH_S)))
        return [(at_s, next(early if at_s < kind.warm_up_s else late)) for at_s in times]

    return script


@contextlib.asynccontextmanager
async def _beside(works: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Do what has no end while the block runs; an error of it ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()


async def _leave(its: Scene, left: Iterator[Order], history: History, rng: random.Random) -> None:
    """Begin awaited and streamed requests and leave them in their middle, without a word; until cancelled."""
    for order in left:
        path = "/v1/chat/completions" if order.is_chat else "/v1/completions"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(rng.uniform(0.05, 1)):
                async with its.session.post(
                    rng.choice(its.urls) + path, json=order.body, headers=order.headers
                ) as answer:
                    await answer.read()
        history.did("requests left")
        await asyncio.sleep(rng.uniform(0, 0.5))


async def _tend_dead_letters(its: Scene, history: History) -> None:
    """Release all dead letters, then drop what died again, and so on; until cancelled."""
    for word in cycle(("release", "drop")):
        await asyncio.sleep(DEAD_S)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # Redis' connections were cut
            history.did(f"dead letters, {word}", await _order_dead_letters(its, word))


async def _order_dead_letters(its: Scene, word: str) -> int:
    async with its.session.post(f"{its.urls[0]}/v1/dead-letters/{word}", json={"all": True}) as answer:
        return int((await answer.json()).get("chosen", 0))


async def _settled(its: Scene) -> list[str]:
    """When all jobs are over and forgotten, return what is left of them."""
    async with asyncio.timeout(IDLE_S):
        while its.store.keys("rq:queue:*") or its.store.keys("bl:inflight:*"):
            await asyncio.sleep(0.5)
    await _order_dead_letters(its, "drop")
    await asyncio.to_thread(its.fleet.stop_all_but_valkey)
    await asyncio.sleep(_longest_s(its) + SETTLE_S)
    families = Counter(map(family, its.store.scan_iter("*", count=1000)))
    found = [f"LEFT: {families[name]} keys of {name}:* outlive their jobs" for name in PER_JOB if families[name]]
    return [*found, *leftovers(its.store)]


def _longest_s(its: Scene) -> float:
    """Return how long the keys of a job may stay."""
    return its.settings.queue.max_wait_s + its.settings.queue.result_ttl_s


def _name(measure: Measure, of: str) -> str:
    return f"{measure.name} of {of}"


def _row(measure: Measure, of: str, its_slope: Slope) -> dict[str, Any]:
    figures = {name: round(value, 2) for name, value in asdict(its_slope).items()}
    return {"measure": measure.name, "of": of, "unit": measure.unit, **figures, "verdict": its_slope.verdict}


def table(report: Report) -> str:
    """Return for documents, of each measure, what comes nearest to its limit, and all that is not flat."""
    nearest = {row["measure"]: row for row in sorted(report.slopes, key=lambda row: float(row["high"] / row["limit"]))}
    lines = ["| what | level | an hour adds (99 %) | limit | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in report.slopes:
        if row["verdict"] is Verdict.FLAT and row is not nearest[row["measure"]]:
            continue
        slope = f"{row['per_h']:+.4g} ({row['low']:+.4g} to {row['high']:+.4g})"
        name = f"{row['measure']} of {row['of']}" + (f", {row['unit']}" if row["unit"] else "")
        lines.append(f"| {name} | {row['level']:.4g} | {slope} | {row['limit']:.4g} | {row['verdict']} |")
    flat = Counter(row["measure"] for row in report.slopes if row["verdict"] is Verdict.FLAT)
    series = Counter(row["measure"] for row in report.slopes)
    lines += ["", "Flat: " + ", ".join(f"{name} {flat[name]} of {count}" for name, count in series.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Read the command line, run, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--seed", type=int, default=None, help="of jobs and crashes; drawn when not given")
    args = parser.parse_args()
    seed = random.randrange(1_000_000) if args.seed is None else args.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    folder = ROOT / "var" / "soak" / str(seed)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run with this seed
    folder.mkdir(parents=True)
    report = asyncio.run(soak(Soak(minutes=args.minutes), seed, folder))
    folder.with_suffix(".json").write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    rest = asdict(replace(report, slopes=[]))
    sys.stdout.write(table(report) + json.dumps(rest, indent=2) + "\n")
    return 1 if report.found else 0


if __name__ == "__main__":
    sys.exit(main())
