"""Chaos: submit many jobs in every way while processes, Redis and network break, then hold the history to its promises.

`python -m tests.chaos.run --jobs 20000 --seed 7` prints the seed and what it found, and writes var/chaos/<seed>.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path

from tests.chaos.clients import HttpClients
from tests.chaos.faults import Faults
from tests.chaos.history import History, Record, contradictions, executions
from tests.chaos.leftovers import leftovers
from tests.chaos.orders import Door, Order, draw
from tests.chaos.producers import produce
from tests.chaos.readers import read_at_random, read_job, records, watch_published
from tests.chaos.scene import FLAGS, Scene, scene
from tests.conftest import ROOT

PRODUCERS, READERS, READS_AT_ONCE = 2, 2, 96
Orders = tuple[Iterator[Order], Iterator[Order]]
READ_PAUSE_S = 0.05
# After the last fault: every lease runs out, every job runs, every outcome is read through every intake.
DRAIN_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much at the same time, and for how long."""

    clients: int  # over HTTP, each with one job at a time
    pause_s: float  # between two faults of the same list, on average
    most_s: float = math.inf  # no more orders after so long


# The long run: its faults leave time for 20,000 jobs in ten minutes.
LONG = Pace(clients=256, pause_s=2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did and found."""

    seed: int
    jobs: int
    accepted: int
    ended: dict[str, int]  # jobs by state, and by code where they failed
    answers: dict[str, int]  # to submissions
    faults: dict[str, int]
    starts: dict[str, int]  # of each process
    outcomes_read: int
    executions: dict[int, int]  # attempts charged -> jobs
    repeated: int  # attempts beyond the first
    load_s: float
    drain_s: float
    wall_s: float
    found: list[str]


async def run(jobs: int, seed: int, folder: Path, pace: Pace) -> Report:
    """Run once; all that the processes write goes into `folder`."""
    start = time.monotonic()
    rng = random.Random(seed)
    orders = [draw(number, rng) for number in range(jobs)]
    history = History()
    async with scene(folder) as its:
        threading.Thread(target=watch_published, args=(its.store, history), name="watch", daemon=True).start()
        faults = Faults(its.fleet, its.proxy, float(FLAGS["queue.lease_s"]), pace.pause_s, rng)
        begun = time.monotonic()
        await _load(its, _until(begun + pace.most_s, orders), history, faults, pace.clients)
        loaded = time.monotonic()
        found = await _drain(its, history)
        drained = time.monotonic()
        await asyncio.to_thread(its.fleet.stop_all_but_valkey)
        stored = records(its.store)
        found += [*contradictions(history, stored, FLAGS["queue.max_attempts"]), *leftovers(its.store)]
        history.is_closed.set()
    found += its.fleet.defects()
    counted = executions(stored)
    return Report(
        seed=seed,
        jobs=jobs,
        accepted=len(history.accepted_ids()),
        ended=_ended(stored),
        answers=dict(sorted(history.answers.items())),
        faults=dict(faults.count),
        starts={service.name: service.starts for service in its.fleet.all},
        outcomes_read=sum(map(len, history.seen.values())),
        executions=dict(sorted(counted.items())),
        repeated=sum((times - 1) * count for times, count in counted.items() if times),
        load_s=round(loaded - begun, 1),
        drain_s=round(drained - loaded, 1),
        wall_s=round(time.monotonic() - start, 1),
        found=found,
    )


async def _load(its: Scene, orders: Orders, history: History, faults: Faults, count: int) -> None:
    """Carry out all orders while things break."""
    by_http, by_producer = orders
    clients = HttpClients(its.urls, history, random.Random(1))
    beside = [asyncio.create_task(faults.run())]
    beside += [
        asyncio.create_task(read_at_random(its.session, its.urls, history, READ_PAUSE_S)) for _ in range(READERS)
    ]
    await asyncio.gather(
        *(clients.work(its.session, by_http) for _ in range(count)),
        *(asyncio.to_thread(produce, its.settings, by_producer, history, seed) for seed in range(PRODUCERS)),
    )
    for task in beside:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _until(end_s: float, orders: list[Order]) -> Orders:
    """Part the orders by who carries them out. Iterators of several threads, which generators could not be."""
    by_producer = [order for order in orders if order.door is Door.PRODUCER]
    by_http = [order for order in orders if order.door is not Door.PRODUCER]
    return (
        takewhile(lambda _: time.monotonic() < end_s, by_http),
        takewhile(lambda _: time.monotonic() < end_s, by_producer),
    )


async def _drain(its: Scene, history: History) -> list[str]:
    """Read every accepted job through every intake until it is over; return what is not over in time."""
    left = [(job_id, url) for job_id in history.accepted_ids() for url in its.urls]
    end = time.monotonic() + DRAIN_S
    while left and time.monotonic() < end:
        are_over = []
        for at in range(0, len(left), READS_AT_ONCE):
            reads = (read_job(its.session, url, job_id, history) for job_id, url in left[at : at + READS_AT_ONCE])
            are_over += await asyncio.gather(*reads)
        left = [pair for pair, is_over in zip(left, are_over, strict=True) if not is_over]
        await asyncio.sleep(0.2 if left else 0)
    while its.store.keys("bl:inflight:*") and time.monotonic() < end:  # jobs nobody knows of
        await asyncio.sleep(0.1)
    return [f"SLOW: {len(left)} reads found no outcome {DRAIN_S:g} s after the last fault"] if left else []


def _ended(stored: dict[str, Record]) -> dict[str, int]:
    count: dict[str, int] = {}
    for record in stored.values():
        outcome = record.outcome
        name = " ".join(filter(None, (outcome.state, outcome.code))) if outcome else record.status
        count[name] = count.get(name, 0) + 1
    return dict(sorted(count.items()))


def main() -> int:
    """Read the command line, run, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None, help="of jobs and faults; drawn when not given")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no more jobs after so long")
    args = parser.parse_args()
    seed = random.randrange(1_000_000) if args.seed is None else args.seed
    sys.stdout.write(f"seed {seed}\n")
    folder = ROOT / "var" / "chaos" / str(seed)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run with this seed
    folder.mkdir(parents=True)
    report = asyncio.run(run(args.jobs, seed, folder, replace(LONG, most_s=args.seconds)))
    text = json.dumps(asdict(report), indent=2)
    folder.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if report.found else 0


if __name__ == "__main__":
    sys.exit(main())
