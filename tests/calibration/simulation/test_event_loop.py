"""The event loop against queues whose answers are known, and against the rule of overflow."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from calibration.simulation.arrivals import Arrivals, Lengths, generate
from calibration.simulation.run_simulation import simulate
from tests.calibration.simulation.fleets import curve_of, scenario_of

RUNS, JOBS = 16, 4000
T_15 = 2.947  # Student's t, 15 degrees of freedom, two-sided 99 %


def erlang_wait_s(rate: float, service_s: float, servers: int) -> float:
    """Return the mean wait of M/M/c (Erlang C)."""
    load = rate * service_s
    tail = load**servers / math.factorial(servers) * servers / (servers - load)
    busy = tail / (sum(load**k / math.factorial(k) for k in range(servers)) + tail)
    return busy * service_s / (servers - load)


def poisson(rate: float, seed: int, tokens: str = "exponential") -> Arrivals:
    random = np.random.default_rng(seed)
    work = random.exponential(1, JOBS) if tokens == "exponential" else np.ones(JOBS)
    at_s = np.cumsum(random.exponential(1 / rate, JOBS))
    # The first token comes in no time here: the others are the work.
    return Arrivals(at_s=at_s, input_tokens=np.ones(JOBS), output_tokens=work + 1)


def interval(values: list[float]) -> tuple[float, float]:
    half = T_15 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


@pytest.mark.parametrize(
    ("workers", "slots", "rate"),
    [(1, 1, 0.6), (4, 1, 3.0), (1, 4, 3.0)],
    ids=["M/M/1", "M/M/4 of four workers", "M/M/4 of one worker's slots"],
)
def test_waits_are_those_of_erlang_c(workers: int, slots: int, rate: float, tmp_path: Path) -> None:
    # Each job takes as long beside others: slots are servers.
    scenario = scenario_of(tmp_path, [{"name": "a", "workers": workers, "slots": slots}], curve_of({1: 1.0, 4: 1.0}))

    low, high = interval([simulate(scenario, poisson(rate, seed))["wait_s"]["mean"] for seed in range(RUNS)])

    assert low < erlang_wait_s(rate, 1.0, workers * slots) < high


@pytest.mark.parametrize("tokens", ["exponential", "constant"])
def test_jobs_that_share_a_worker_take_as_long_as_processor_sharing_says(tokens: str, tmp_path: Path) -> None:
    # The engine writes one token a second whatever runs: 1 / (1 - load), however work is spread.
    curve = curve_of({1: 1.0, 8: 8.0, 64: 64.0})
    scenario = scenario_of(tmp_path, [{"name": "a", "slots": 64}], curve)

    low, high = interval([simulate(scenario, poisson(0.6, seed, tokens))["total_s"]["mean"] for seed in range(RUNS)])

    assert low < 1 / (1 - 0.6) < high


def at_once(count: int, tokens: float = 101, at_s: float = 0.0) -> Arrivals:
    return Arrivals(at_s=np.full(count, at_s), input_tokens=np.full(count, 10.0), output_tokens=np.full(count, tokens))


LADDER = [
    {"name": "a", "slots": 1, "high": 4, "low": 1, "price_per_hour": 1.0},
    {"name": "b", "slots": 2, "high": 4, "low": 1, "price_per_hour": 3.0},
]


@pytest.mark.parametrize(("jobs", "overflowed"), [(1, 0), (5, 0), (6, 3)])
def test_a_queue_overflows_above_its_high_mark_only(jobs: int, overflowed: int, tmp_path: Path) -> None:
    # One runs and the others wait: five of them are above the mark of 4. Tier b takes two at once, and when these end
    # at the same moment as the first one of a, one more is above the low mark.
    made = simulate(scenario_of(tmp_path, LADDER, curve_of({1: 0.01, 4: 0.01})), at_once(jobs))

    assert made["overflow"]["requests"] == overflowed
    assert made["overflow"]["ways"] == ({"a to b": overflowed} if overflowed else {})


def test_the_jobs_of_a_tier_without_workers_are_served_above(tmp_path: Path) -> None:
    ladder = [LADDER[0] | {"workers": 0}, LADDER[1]]

    made = simulate(scenario_of(tmp_path, ladder, curve_of({1: 0.01, 4: 0.01})), at_once(3))

    assert [row["share"] for row in made["tiers"]] == [0, 1]
    assert made["total_s"]["p50"] == pytest.approx(
        2.0
    )  # two when b has looked a second later, and the third behind them


def test_idle_higher_tiers_take_the_batch_lane_and_not_the_normal_one(tmp_path: Path) -> None:
    jobs = at_once(4, tokens=1001)
    batch = Arrivals(
        at_s=jobs.at_s, input_tokens=jobs.input_tokens, output_tokens=jobs.output_tokens, lanes=["batch"] * 4
    )
    scenario = scenario_of(tmp_path, LADDER, curve_of({1: 0.01, 4: 0.01}))

    assert simulate(scenario, batch)["overflow"]["requests"] == 2
    assert simulate(scenario, jobs)["overflow"]["requests"] == 0


def test_rent_is_paid_for_all_time_and_attribution_for_busy_time_alone(tmp_path: Path) -> None:
    # Two jobs share b for 3600 s of its own; a is idle all the while.
    scenario = scenario_of(tmp_path, LADDER, curve_of({1: 36.0, 4: 36.0}), shares={"b": 1.0})

    made = simulate(scenario, at_once(2))

    assert made["cost"]["rent"] == pytest.approx(1.0 + 3.0)
    assert made["cost"]["attributed"] == pytest.approx(3.0)
    assert [row["busy"] for row in made["tiers"]] == [0, pytest.approx(1)]


def test_a_longer_prompt_waits_longer_for_its_first_token(tmp_path: Path) -> None:
    curve = curve_of({1: 0.01, 4: 0.01}, ttft_s=0.5)
    short = scenario_of(tmp_path, LADDER, curve)

    assert simulate(short, at_once(1))["ttft_s"]["p50"] == pytest.approx(0.5)
    assert simulate(short, at_once(1))["total_s"]["p50"] == pytest.approx(0.5 + 100 * 0.01)


def test_equal_seeds_make_equal_figures_and_others_do_not(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, LADDER, curve_of({1: 0.01, 4: 0.02}), shares={"a": 0.5, "b": 0.5})
    lengths = Lengths(kind="zipf", input_tokens=100, output_tokens=50)

    made = [simulate(scenario, generate("bursts:rate=1,burst_rate=9", 500, lengths, seed)) for seed in (1, 1, 2)]

    assert made[0] == made[1] != made[2]
