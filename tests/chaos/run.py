"""Chaos: submit many jobs in every way while processes, Redis and network break, then hold the run to its promises.

`python -m tests.chaos.run --jobs 20000 --seed 7` prints the seed and what it found, and writes var/chaos/<seed>.json.
The lease and all other settings of the product are those that ship; outages are longer than a lease, and shorter ones.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, takewhile
from pathlib import Path

from tests.chaos.checks.evidence import Evidence
from tests.chaos.checks.executions import executed, wrong_runs
from tests.chaos.checks.leftovers import leftovers
from tests.chaos.checks.outcomes import wrong_outcomes
from tests.chaos.checks.timeline import Timeline
from tests.chaos.checks.witness import gather
from tests.chaos.drain import drain
from tests.chaos.faults import Fault, Faults
from tests.chaos.system.scene import Kind, Scene, scene
from tests.chaos.traffic.clients import HttpClients
from tests.chaos.traffic.history import History
from tests.chaos.traffic.orders import Order, draw_http, draw_long, draw_produced, draw_rq, orders
from tests.chaos.traffic.producers import enqueue, produce
from tests.chaos.traffic.readers import read_at_random, watch_published
from tests.conftest import ROOT

PRODUCERS, RQ_PRODUCERS, READERS = 2, 1, 2
READ_PAUSE_S = 0.05
MAX_SHOWN = 50  # findings on the terminal; the file has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much, for how long, and what breaks."""

    jobs: int  # accepted, until no more are submitted
    clients: int  # over HTTP, each with one job at a time
    long_clients: int  # the same, whose jobs run for longer than a lease
    long_jobs: int | None = None  # of them, in all; None: for as long as the others
    max_s: float = math.inf  # no more orders after so long
    pause_s: float = 2.5  # between two faults of the same list, on average
    # Instead of drawn faults: when each begins, in seconds.
    script: Callable[[Faults], Sequence[tuple[float, Fault]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did and found."""

    seed: int
    durability: str
    is_signed: bool
    lease_s: float
    max_attempts: int
    accepted: int
    ended: dict[str, int]  # jobs by state, and by code where they failed
    answers: dict[str, int]  # to submissions
    faults: dict[str, int]
    longest_s: float  # of the outages that everybody shared
    starts: dict[str, int]  # of each process
    reads: dict[str, int]
    executed: dict[int, int]  # times executed -> jobs
    executed_again: int  # executions beyond the first of each job
    charged_again: int  # attempts beyond the first
    forgotten: int  # accepted jobs that went with a last second (`everysec`)
    forgotten_age_s: float  # how long before the server's end the oldest of them had been accepted
    load_s: float
    drain_s: float
    wall_s: float
    found_by_kind: dict[str, int]
    found: list[str]


async def run(plan: Plan, kind: Kind, seed: int, folder: Path) -> Report:
    """Run once; all that the processes write goes into `folder`."""
    start, rng, history, timeline = time.monotonic(), random.Random(seed), History(), Timeline()
    async with scene(folder, kind) as its:
        watch = (its.store, its.signer, history)
        threading.Thread(target=watch_published, args=watch, name="watch", daemon=True).start()
        faults = Faults(its, timeline, history.is_open, rng)
        begun = time.monotonic()
        await load(its, plan, history, faults, seed)
        loaded = time.monotonic()
        found = await drain(its, history)
        drained = time.monotonic()
        await asyncio.to_thread(its.fleet.stop_all_but_valkey)
        evidence = gather(its, history, timeline, folder, kind)
        found += [*wrong_outcomes(evidence), *wrong_runs(evidence), *leftovers(its.store)]
        history.is_closed.set()
        timeline.write(folder / "faults.jsonl")
    found += its.fleet.defects()
    records = evidence.records.values()
    forgotten = [
        accepted
        for told in history.told.values()
        for job_id, accepted in told.ids.items()
        if job_id not in evidence.records
    ]
    return Report(
        seed=seed,
        durability=kind.durability,
        is_signed=kind.is_signed,
        lease_s=evidence.lease_s,
        max_attempts=evidence.max_attempts,
        accepted=history.accepted_count(),
        ended=_ended(evidence),
        answers=dict(sorted(history.answers.items())),
        faults=dict(sorted(faults.count.items())),
        longest_s=round(timeline.longest_s(), 1),
        starts={service.name: len(service.lives) for service in its.fleet.all},
        reads={"outcomes": sum(map(len, history.seen.values())), **dict(sorted(history.count.items()))},
        executed=dict(sorted(executed(evidence).items())),
        executed_again=sum(max(0, times - 1) * count for times, count in executed(evidence).items()),
        charged_again=sum(max(0, record.attempts - 1) for record in records),
        forgotten=len(forgotten),
        forgotten_age_s=round(max((timeline.age_s(one.sent_s, one.heard_s) for one in forgotten), default=0), 3),
        load_s=round(loaded - begun, 1),
        drain_s=round(drained - loaded, 1),
        wall_s=round(time.monotonic() - start, 1),
        found_by_kind=dict(Counter(line.partition(":")[0] for line in found)),
        found=found,
    )


async def load(its: Scene, plan: Plan, history: History, faults: Faults, seed: int) -> None:
    """Carry out orders while things break, until enough are accepted."""
    end, beside = time.monotonic() + plan.max_s, list[asyncio.Task[None]]()

    def is_wanted(_: Order) -> bool:
        is_broken = any(task.done() and task.exception() for task in beside)  # who breaks things has broken
        return history.accepted_count() < plan.jobs and time.monotonic() < end and not is_broken

    def until_enough(endless: Iterator[Order]) -> Iterator[Order]:
        return takewhile(is_wanted, endless)

    clients = HttpClients(its.urls, history, random.Random(seed))
    by_http, produced = until_enough(orders(seed, 0, draw_http)), until_enough(orders(seed, 1, draw_produced))
    by_rq, long = until_enough(orders(seed, 2, draw_rq)), until_enough(orders(seed, 3, draw_long))
    if plan.long_jobs is not None:
        long = islice(long, plan.long_jobs)
    beside += [asyncio.create_task(faults.play(plan.script(faults)) if plan.script else faults.run(plan.pause_s))]
    beside += [
        asyncio.create_task(read_at_random(its.session, its.urls, history, READ_PAUSE_S)) for _ in range(READERS)
    ]
    await asyncio.gather(
        *(clients.work(its.session, long) for _ in range(plan.long_clients)),
        *(clients.work(its.session, by_http) for _ in range(plan.clients)),
        *(asyncio.to_thread(produce, its.settings, produced, history, number) for number in range(PRODUCERS)),
        *(asyncio.to_thread(enqueue, its.settings, by_rq, history, number) for number in range(RQ_PRODUCERS)),
    )
    if plan.script:
        await beside[0]
    for task in beside:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _ended(evidence: Evidence) -> dict[str, int]:
    count: Counter[str] = Counter()
    for record in evidence.records.values():
        outcome = record.outcome
        count[" ".join(filter(None, (outcome.state, outcome.code))) if outcome else record.status] += 1
    return dict(sorted(count.items()))


def main() -> int:
    """Read the command line, run, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="to be accepted")
    parser.add_argument("--seed", type=int, default=None, help="of jobs and faults; drawn when not given")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no more jobs after so long")
    parser.add_argument("--durability", choices=("everysec", "fsync"), default="everysec")
    parser.add_argument("--signed", action="store_true", help="with queue.secrets")
    args = parser.parse_args()
    seed = random.randrange(1_000_000) if args.seed is None else args.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    folder = ROOT / "var" / "chaos" / str(seed)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run with this seed
    folder.mkdir(parents=True)
    plan = Plan(jobs=args.jobs, clients=256, long_clients=10, max_s=args.seconds)
    report = asyncio.run(run(plan, Kind(durability=args.durability, is_signed=args.signed), seed, folder))
    folder.with_suffix(".json").write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    shown = replace(report, found=report.found[:MAX_SHOWN])
    sys.stdout.write(json.dumps(asdict(shown), indent=2) + "\n")
    return 1 if report.found else 0


if __name__ == "__main__":
    sys.exit(main())
