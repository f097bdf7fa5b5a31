"""What overflow and consent bring under a burst, and what they cost: `python -m benchmarks.load.burst [--trace FILE]`.

One worker each at the speeds of an L4 (int4), an A10G (int8) and an H100 (fp8), as the echo engine, eight times as fast
as those. Jobs arrive as in Azure's trace: every fourth of its requests, in a burst all of them. All times and costs are
in the trace's own time.
"""

from __future__ import annotations

import asyncio
import csv
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import redis

from benchmarks.harness import ROOT, Figures, percentile, process, save, say, target, valkey, wait_for
from benchmarks.harness import arguments as shared_arguments
from bitladder.contract import Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import QueueName
from bitladder.settings.load import load_settings

TRACE = ROOT / "benchmarks" / "load" / "traces" / "azure-conv.csv"
SPEED = 8  # seconds of the trace in one of the run
THIN = 4  # outside of the burst every fourth request of the trace is sent
BURST_S = (120.0, 184.0)  # in the trace's time
DEADLINE_S = 20.0
LADDER = ("int4", "int8", "fp8")
MAX_TOKENS = 512
# Seconds to the first token, tokens a second of one job, slots, price an hour: AIConfigurator's curves of an 8B model
# at this batch, those of L4 and A10G by 0.66; prices as of the article.
TIERS = {"int4": (0.21, 33.0, 8, 0.80), "int8": (0.18, 40.0, 8, 1.21), "fp8": (0.07, 133.0, 32, 3.20)}
TOP_PRICES = (1.0, 2.0, 3.2, 5.0, 8.0, 12.0)
SHARES = (0.5, 0.4, 0.1)  # of the floors
NONE = "overflow = []\neager = []\n[queue]\ndeadline_share = 1\n"
SHIPPED = ""
WAIT = "high_wait_s = 1\nlow_wait_s = 0.25\n"  # in the run's time: 8 s and 2 s of the trace
FEW_SLOTS = 4
_Row = tuple[float, str, Outcome]  # when it arrived, its floor, how it ended


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    name: str
    lanes: str  # of the configuration, behind [lanes]
    has_burst: bool
    is_high: bool = False  # what the burst adds has the top tier as its floor, and that has few slots
    marks: str = ""  # of every tier
    consents: bool = False


SCENARIOS = (
    Scenario(name="steady, no overflow", lanes=NONE, has_burst=False),
    Scenario(name="steady, as shipped", lanes=SHIPPED, has_burst=False),
    Scenario(name="burst, no overflow", lanes=NONE, has_burst=True),
    Scenario(name="burst, as shipped", lanes=SHIPPED, has_burst=True),
    Scenario(name="burst, mark of the wait", lanes=SHIPPED, has_burst=True, marks=WAIT),
    Scenario(name="high burst, as shipped", lanes=SHIPPED, has_burst=True, is_high=True),
    Scenario(name="high burst, consent", lanes=SHIPPED, has_burst=True, is_high=True, consents=True),
    Scenario(
        name="high burst, consent, mark of the wait",
        lanes=SHIPPED,
        has_burst=True,
        is_high=True,
        consents=True,
        marks=WAIT,
    ),
)


def main() -> None:
    """Run every scenario and write the figures."""
    options = shared_arguments(__doc__)
    arrivals = read_trace(TRACE, 160 if options.short else None)
    rows: dict[str, Figures] = {}
    for scenario in SCENARIOS:
        if options.only in scenario.name:
            rows[scenario.name] = figures_of(asyncio.run(run(scenario, arrivals)))
            say(f"{scenario.name}: {rows[scenario.name]}")
    save("burst", {"load_average": os.getloadavg()[0], "rows": rows, "targets": targets(rows)}, options)


def targets(rows: dict[str, Figures]) -> list[Figures]:
    """Return what was asked for and what was measured, where both runs of a pair were made."""
    pairs = [
        ("p99 under a burst, with overflow as without", "burst, as shipped", "burst, no overflow", "p99_s", 0.4),
        ("the same, with a mark of the wait", "burst, mark of the wait", "burst, no overflow", "p99_s", 0.4),
        ("p99 of a high burst, with consent as without", "high burst, consent", "high burst, as shipped", "p99_s", 0.8),
        (
            "attributed cost of a steady load, as without",
            "steady, as shipped",
            "steady, no overflow",
            "attributed",
            1.02,
        ),
    ]
    return [
        target(name, rows[one][figure] / rows[other][figure], bound, at_most=True)
        for name, one, other, figure, bound in pairs
        if one in rows and other in rows
    ]


def read_trace(file: Path, seconds: float | None) -> list[tuple[float, int]]:
    """Return when requests arrive, in seconds, and how many tokens they get."""
    with file.open(encoding="utf-8") as lines:
        rows = [(float(row[0]), int(row[1])) for row in csv.reader(line for line in lines if line[0] != "#")]
    return [row for row in rows if seconds is None or row[0] < seconds]


def chosen(scenario: Scenario, arrivals: Sequence[tuple[float, int]]) -> Iterator[tuple[float, int, str]]:
    """Yield what is sent, with its floor: every fourth arrival, in a burst the others as well."""
    dice = random.Random(7)  # noqa: S311  (which floor)
    start_s, end_s = BURST_S if scenario.has_burst else (0.0, 0.0)
    for place, (at_s, tokens) in enumerate(arrivals):
        (floor,) = dice.choices(LADDER, SHARES)
        if place % THIN == 0:
            yield at_s, tokens, floor
        elif start_s <= at_s < end_s:
            yield at_s, tokens, LADDER[-1] if scenario.is_high else floor


async def run(scenario: Scenario, arrivals: Sequence[tuple[float, int]]) -> list[_Row]:
    """Send the arrivals to three workers and return how each job ended."""
    with ExitStack() as block:
        folder = Path(block.enter_context(tempfile.TemporaryDirectory()))
        url = block.enter_context(valkey(folder))
        config = folder / "bitladder.toml"
        config.write_text(configuration(scenario), encoding="utf-8")
        client = redis.Redis.from_url(url)
        for tier, (ttft_s, tokens_per_s, _, _) in TIERS.items():
            environment = {
                "BITLADDER_CONFIG": str(config),
                "BITLADDER_REDIS__URL": url,
                "BITLADDER_ECHO__TTFT_MS": str(1000 * ttft_s / SPEED),
                "BITLADDER_ECHO__TOKENS_PER_S": str(tokens_per_s * SPEED),
            }
            block.enter_context(process([sys.executable, "-P", "-m", "workers", "--tier", tier], environment))
        wait_for(lambda: all(client.zcard(f"bl:live:bench:{tier}") for tier in LADDER), "the workers are live")
        settings = load_settings(str(config), environ={}, flags={"redis.url": url}).settings
        queue = JobQueue(connect(settings.redis), settings)
        sent = await send(queue, scenario, arrivals)
        outcomes = await ends(queue, [job_id for _, _, job_id in sent])
        await queue.aclose()
        return [(at_s, floor, outcomes[job_id]) for at_s, floor, job_id in sent]


def configuration(scenario: Scenario) -> str:
    """Return the configuration of one run."""
    tiers = ""
    for tier, (_, _, slots, price) in TIERS.items():
        is_top = tier == LADDER[-1]
        tiers += f'[[models.bench.tiers]]\nname = "{tier}"\nprice_per_hour = {price}\n'
        tiers += f"slots = {FEW_SLOTS if is_top and scenario.is_high else slots}\n{scenario.marks}"
    worker = '[worker]\nengine = "echo"\ncheck_output = false\n'
    return f"[lanes]\n{scenario.lanes}{worker}[models.bench]\n{tiers}"


async def send(
    queue: JobQueue, scenario: Scenario, arrivals: Sequence[tuple[float, int]]
) -> list[tuple[float, str, str]]:
    """Submit each job at its time; return when, its floor and its id."""
    begin, sent = time.perf_counter(), []
    for number, (at_s, tokens, floor) in enumerate(chosen(scenario, arrivals)):
        rank = LADDER.index(floor)
        name = QueueName.of("bench", floor, "normal", LADDER if scenario.consents else LADDER[rank:], LADDER)
        body = msgspec.json.encode({"model": "bench", "prompt": "a b c d", "max_tokens": min(tokens, MAX_TOKENS)})
        request = Request(body=msgspec.Raw(body), decision=Decision(floor=floor))
        job = Submission(job_id=f"job-{number}", model="bench", queue=str(name), request=request)
        await asyncio.sleep(max(0.0, begin + at_s / SPEED - time.perf_counter()))
        (answer,) = await queue.submit([job])
        if not isinstance(answer, str):
            raise answer
        sent.append((at_s, floor, answer))
    return sent


async def ends(queue: JobQueue, job_ids: Sequence[str]) -> dict[str, Outcome]:
    """Wait until all jobs have ended; return their outcomes."""
    outcomes: dict[str, Outcome] = {}
    while missing := [job_id for job_id in job_ids if job_id not in outcomes]:
        for start in range(0, len(missing), 256):
            bundle = missing[start : start + 256]
            for job_id, found in zip(bundle, await queue.look(bundle), strict=True):
                if isinstance(found, Outcome):
                    outcomes[job_id] = found
        await asyncio.sleep(0.5)
    return outcomes


def figures_of(rows: Sequence[_Row]) -> Figures:
    """Return what became of the jobs, in the trace's time."""
    if any(outcome.state is not State.FINISHED for _, _, outcome in rows):
        raise RuntimeError("a job failed")
    answered = [(outcome.queue_ms + outcome.run_ms) / 1000 * SPEED for _, _, outcome in rows]
    first = [outcome.queue_ms / 1000 * SPEED + TIERS[outcome.tier or ""][0] for _, _, outcome in rows]
    busy_s = {tier: busy(rows, tier) for tier in LADDER}
    whole_s = max(at_s + answer_s for (at_s, _, _), answer_s in zip(rows, answered, strict=True))
    tokens = sum(outcome.usage.completion_tokens for _, _, outcome in rows)
    prices = {tier: price for tier, (_, _, _, price) in TIERS.items()}
    return {
        "jobs": len(rows),
        "p50_s": percentile(answered, 0.5),
        "p95_s": percentile(answered, 0.95),
        "p99_s": percentile(answered, 0.99),
        "first_p95_s": percentile(first, 0.95),
        "misses": sum(answer_s > DEADLINE_S for answer_s in answered) / len(rows),
        "escalated": sum(outcome.overflowed_from is not None for _, _, outcome in rows) / len(rows),
        "below": sum(outcome.served_below_floor for _, _, outcome in rows) / len(rows),
        "rent": cost(dict.fromkeys(LADDER, whole_s), prices, tokens),
        "attributed": cost(busy_s, prices, tokens),
        **{f"at_{price:g}": cost(busy_s, prices | {"fp8": price}, tokens) for price in TOP_PRICES},
    }


def busy(rows: Sequence[_Row], tier: str) -> float:
    """Return for how many seconds a tier's engine ran anything."""
    spans = sorted(
        (at_s + outcome.queue_ms / 1000 * SPEED, at_s + (outcome.queue_ms + outcome.run_ms) / 1000 * SPEED)
        for at_s, _, outcome in rows
        if outcome.tier == tier
    )
    total, until = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def cost(seconds: dict[str, float], prices: dict[str, float], tokens: int) -> float:
    """Return the cost of a million tokens."""
    return sum(seconds[tier] * prices[tier] / 3600 for tier in LADDER) / tokens * 1e6


if __name__ == "__main__":
    main()
