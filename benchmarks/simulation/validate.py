"""What `calibrate simulate` says beside what the stack does: `python -m benchmarks.simulation.validate`.

Valkey, an intake and four workers of three tiers, as processes, at the marks that ship. The workers' engine is the echo
engine, as fast as the curves by which the simulation goes. Both are given the very same requests: when they come, how
long they are, their floors and lanes. A client's latency counts from when its request was due. Times are the real ones:
nothing is scaled, and nothing is added to the simulation for the host's own part, which is reported (`host_ms`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.harness import Figures, arguments, save, say, target
from benchmarks.simulation.replayed_stack import PRIORITIES, WORKERS, Answer, key_of, replay, stack
from calibration.commands.configuration import load_configuration
from calibration.simulation.arrivals import Lengths, generate
from calibration.simulation.fleet_file import Fleet, FleetTier
from calibration.simulation.run_simulation import Scenario, simulate
from calibration.simulation.service_curves import read_curves
from calibration.simulation.trace_files import read_arrivals

PRICES = {"int4": 0.70, "int8": 1.00, "fp8": 3.20}
SHARES = {"int4": 0.7, "int8": 0.2, "fp8": 0.1}
# Seconds to the first token of 100 prompt tokens, and per token, by requests at once. Slower than real GPUs, so that
# two cores carry the stack.
POINTS = {
    "int4": ((1, 0.15, 0.030), (4, 0.20, 0.036), (16, 0.30, 0.070)),
    "int8": ((1, 0.12, 0.034), (4, 0.16, 0.040), (16, 0.25, 0.078)),
    "fp8": ((1, 0.05, 0.012), (4, 0.06, 0.013), (16, 0.08, 0.018)),
}
WEIGHTS = {"big": 1, "small": 2}
WITHIN = 0.10


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that come."""

    name: str
    arrivals: str
    count: int
    seed: int = 1
    asks: bool = False  # for deadlines, ceilings and sets of tiers, from two tenants


LOADS = (
    Load(name="low load", arrivals="poisson:rate=3", count=240),
    Load(name="near saturation", arrivals="poisson:rate=9.5", count=950, seed=2),
    Load(
        name="overload with deadlines, ceilings and two tenants",
        arrivals="poisson:rate=20",
        count=1200,
        seed=4,
        asks=True,
    ),
    Load(name="burst", arrivals="bursts:rate=2,burst_rate=22,on_s=20,off_s=20", count=480, seed=3),
)


def main() -> None:
    """Run each load through the stack and through the simulation, and write both."""
    options = arguments(__doc__)
    rows = {}
    for load in LOADS:
        if options.only in load.name:
            rows[load.name] = compared(load, options.short)
            say(f"{load.name}: {json.dumps(rows[load.name])}")
    targets = [
        target(f"{name}: {figure}, off by", abs(off), WITHIN, at_most=True)
        for name, row in rows.items()
        for figure, off in row["off"].items()
    ]
    whole = {"fleet": WORKERS, "prices": PRICES, "curves": POINTS, "rows": rows, "targets": targets}
    save("validate", whole, options)


def compared(load: Load, short: bool = False) -> Figures:
    """Return what the stack did, what the simulation says, and how far it is off."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = write_trace(folder / "trace.jsonl", load, load.count // 4 if short else load.count)
        (folder / "curves.json").write_text(json.dumps({"curves": curves()}))
        (folder / "bitladder.toml").write_text(configuration(load))
        # The simulation reads the trace, the curves and the configuration as its command does.
        simulated = simulate(_scenario(folder), read_arrivals(folder / "trace.jsonl"))
        before = os.getloadavg()[0]
        with stack(folder) as url:
            answers, late_s = asyncio.run(replay(url, requests))
    measured = figures_of(requests, answers)
    expected = expected_of(simulated)
    return {
        "load": msgspec.to_builtins(load),
        "load_average": before,
        "late_to_send_ms": round(1000 * late_s, 1),
        "host_ms": round(1000 * (measured["p50_s"] - expected["p50_s"]), 1),
        "measured": measured,
        "simulated": expected,
        "off": off_by(measured, expected),
    }


def curves() -> list[dict[str, Any]]:
    """Return the curves, one by each tier's name."""
    return [
        {
            "name": tier,
            "source": "made up",
            "device": "echo",
            "version": "0",
            "mode": "slower than a real GPU",
            "input_tokens": 100,
            "points": [
                {"concurrency": at, "ttft_s": first_s, "time_per_token_s": token_s} for at, first_s, token_s in points
            ],
        }
        for tier, points in POINTS.items()
    ]


def configuration(load: Load) -> str:
    """Return what both run by: marks, slots, lanes and polls as they ship."""
    keys = "".join(
        f'[auth.keys.{name}]\nhash = "{hashlib.sha256(key_of(name).encode()).hexdigest()}"\ntenant = "{name}"\n'
        f'weight = {weight}\nscopes = ["submit", "read", "ops"]\n'
        for name, weight in WEIGHTS.items()
        if load.asks
    )
    tiers = "".join(f'[[models.bench.tiers]]\nname = "{name}"\nprice_per_hour = {PRICES[name]}\n' for name in WORKERS)
    return (
        f'[worker]\nengine = "echo"\n[policy]\nname = "fixed:int4"\n{keys}[models.bench]\nmax_model_len = 4096\n{tiers}'
    )


def write_trace(file: Path, load: Load, count: int) -> list[dict[str, Any]]:
    """Write the requests in the recorded form, and return them."""
    lengths = Lengths(kind="exponential", input_tokens=100, output_tokens=60)
    made = generate(load.arrivals, count, lengths, load.seed)
    random = np.random.default_rng((load.seed, 7))
    floors = random.choice(list(SHARES), count, p=list(SHARES.values()))
    lanes = random.choice(list(PRIORITIES), count, p=[0.1, 0.75, 0.15])
    rows = [
        {
            "at_s": round(float(made.at_s[index] - made.at_s[0]), 4),
            "input_tokens": min(1000, int(made.input_tokens[index])),
            "output_tokens": min(400, int(made.output_tokens[index])),
            "floor": str(floors[index]),
            "lane": str(lanes[index]),
        }
        for index in range(count)
    ]
    if load.asks:
        for row, asked in zip(rows, _asked(random, rows), strict=True):
            row |= asked
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _asked(random: np.random.Generator, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what each request asks for beside its floor and lane."""
    for row in rows:
        asked: dict[str, Any] = {"tenant": "big" if random.random() < 0.8 else "small"}
        if random.random() < 0.7:
            asked["deadline_s"] = float(random.choice([10.0, 20.0]))
        if row["floor"] == "int4":
            asked |= ({}, {"ceiling": "int4"}, {"only": ["int4", "int8"]})[int(random.integers(3))]
        yield asked


def _scenario(folder: Path) -> Scenario:
    return Scenario(
        settings=load_configuration(str(folder / "bitladder.toml")),
        model="bench",
        fleet=Fleet({tier: FleetTier(count, tier) for tier, count in WORKERS.items()}),
        curves=read_curves(folder / "curves.json"),
        shares={},
    )


def figures_of(requests: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> Figures:
    """Return what the clients saw; times are those of answers."""
    pairs = [(request, answer) for request, answer in zip(requests, answers, strict=True) if answer.status == 200]
    total_s = [answer.ended_s - request["at_s"] for request, answer in pairs]
    if wrong := [answer.floor for request, answer in pairs if answer.floor != request["floor"]]:
        raise RuntimeError(f"{len(wrong)} requests had another floor")
    span_s = max(answer.ended_s for answer in answers)
    statuses = Counter(answer.status for answer in answers)
    return {
        "served": statuses[200] / len(answers),
        "refused": statuses[429] / len(answers),
        "expired": statuses[504] / len(answers),
        "p50_s": float(np.quantile(total_s, 0.5)),
        "p95_s": float(np.quantile(total_s, 0.95)),
        "mean_s": float(np.mean(total_s)),
        "wait_p95_s": float(np.quantile([answer.queue_s for _, answer in pairs], 0.95)),
        "shares": {tier: sum(answer.tier == tier for _, answer in pairs) / len(pairs) for tier in WORKERS},
        "overflow": sum(answer.tier != answer.floor for _, answer in pairs) / len(pairs),
        "attributed": sum(answer.cost for answer in answers),
        "rent": span_s / 3600 * sum(count * PRICES[tier] for tier, count in WORKERS.items()),
    }


def expected_of(simulated: Mapping[str, Any]) -> Figures:
    """Return the same of the simulation."""
    ended = {name: count / simulated["requests"] for name, count in simulated["ended"].items()}
    return {
        "served": ended["served"],
        "refused": ended["refused"],
        "expired": ended["expired"] + ended["aborted"],
        "p50_s": simulated["total_s"]["p50"],
        "p95_s": simulated["total_s"]["p95"],
        "mean_s": simulated["total_s"]["mean"],
        "wait_p95_s": simulated["wait_s"]["p95"],
        "shares": {row["tier"]: row["share"] for row in simulated["tiers"]},
        "overflow": simulated["overflow"]["share"],
        "attributed": simulated["cost"]["attributed"],
        "rent": simulated["cost"]["rent"],
    }


def off_by(measured: Figures, simulated: Figures) -> dict[str, float]:
    """Return by how much of the measured value the simulation is off."""
    figures = ("served", "p50_s", "p95_s", "mean_s", "attributed", "rent")
    off = {name: simulated[name] / measured[name] - 1 for name in figures}
    off |= {f"share of {tier}": simulated["shares"][tier] / measured["shares"][tier] - 1 for tier in WORKERS}
    return {name: round(value, 4) for name, value in off.items()}


if __name__ == "__main__":
    main()
