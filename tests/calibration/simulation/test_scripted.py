"""What the queue's own scripts decide in a simulation: deadlines, admission, ceilings, tenants, consent, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitladder.queue_name import Lane
from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals, Lengths, generate
from calibration.simulation.claim_rule import LANES
from calibration.simulation.run_simulation import simulate
from calibration.simulation.scripted import scripted_queue
from calibration.simulation.scripted.script_runner import ScriptRunner
from calibration.simulation.simulated_work import Work
from tests.calibration.simulation.fleets import curve_of, scenario_of

# A token takes 10 ms, whatever runs beside it: 101 tokens take a second.
EVEN = curve_of({1: 0.01, 8: 0.01, 16: 0.01})
ONE = [{"name": "a", "slots": 1, "price_per_hour": 3600.0}]
THREE = [
    {"name": name, "slots": slots, "high": 4, "low": 1, "price_per_hour": 3600.0}
    for name, slots in (("a", 1), ("b", 4), ("c", 4))
]


def at_once(count: int, seconds: Sequence[float] | float = 1.0, **columns: Any) -> Arrivals:  # noqa: ANN401
    work = np.broadcast_to(np.asarray(seconds, dtype=float) * 100 + 1, count)
    return Arrivals(at_s=np.zeros(count), input_tokens=np.full(count, 10.0), output_tokens=work, **columns)


def test_the_scripts_decide_as_the_quick_rule_does_in_every_figure(tmp_path: Path) -> None:
    curve = curve_of({1: 0.01, 4: 0.014, 16: 0.03}, ttft_s=0.05)
    tiers = [{"name": n, "workers": w, "high": 8, "low": 2, "slots": 4} for n, w in (("a", 2), ("b", 1), ("c", 1))]
    scenario = scenario_of(tmp_path, tiers, curve, {"a": 0.7, "b": 0.2, "c": 0.1})
    random = np.random.default_rng(5)
    lengths = Lengths(kind="exponential", input_tokens=100, output_tokens=50)
    plain = replace(
        generate("bursts:rate=4,burst_rate=40,on_s=5,off_s=20", 3000, lengths, seed=1),
        lanes=list(random.choice(["urgent", "normal", "batch"], 3000, p=[0.1, 0.7, 0.2])),
    )

    quick, by_scripts = (simulate(scenario, made) for made in (plain, replace(plain, tenants=[""] * 3000)))

    assert quick["overflow"]["requests"] > 100
    assert by_scripts.pop("tenants")
    assert by_scripts == quick


def test_scripts_that_are_made_once_decide_as_those_that_are_made_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, random = 400, np.random.default_rng(7)
    lengths = Lengths(kind="exponential", input_tokens=100, output_tokens=80)
    arrivals = replace(
        generate("bursts:rate=4,burst_rate=40,on_s=5,off_s=20", count, lengths, seed=1),
        lanes=random.choice(["urgent", "normal", "batch"], count, p=[0.1, 0.7, 0.2]).tolist(),
        deadlines_s=random.choice([0.0, 2.0, 5.0], count).tolist(),
        tenants=random.choice(["", "x", "y"], count).tolist(),
        ceilings=random.choice(["", "c", "b"], count, p=[0.8, 0.1, 0.1]).tolist(),
        only=[("a", "c") if draw < 0.1 else () for draw in random.random(count)],
        below_floor=[draw < 0.2 for draw in random.random(count)],
    )
    more = "[intake]\nadmission = false\n[queue]\nfair_depth = 20"
    scenario = scenario_of(
        tmp_path, [tier | {"high_wait_s": 3.0} for tier in THREE], EVEN, {"a": 0.7, "c": 0.3}, more=more
    )

    once = simulate(scenario, arrivals)
    monkeypatch.setattr(scripted_queue, "ScriptRunner", partial(ScriptRunner, as_they_are=True))
    monkeypatch.setattr(scripted_queue, "without_unused", lambda plan, _: plan)  # and the plans as a server has them

    assert min(once["overflow"]["requests"], once["ended"]["expired"], once["ended"]["served"]) > 0
    assert simulate(scenario, arrivals) == once


def test_a_job_whose_deadline_is_near_goes_before_older_ones(tmp_path: Path) -> None:
    # In turn the last one would begin after 4 s, when its deadline of 3.5 s has passed.
    scenario = scenario_of(tmp_path, ONE, EVEN, more="[intake]\nadmission = false")

    made = simulate(scenario, at_once(5, deadlines_s=[0, 0, 0, 0, 3.5]))

    assert made["ended"] == {"served": 5, "refused": 0, "expired": 0, "aborted": 0}
    assert made["wait_s"]["mean"] == pytest.approx((0 + 1 + 2 + 3 + 4) / 5)


def test_a_deadline_ends_a_job_that_waits_and_one_that_runs(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ONE, EVEN)

    made = simulate(scenario, at_once(3, [10.0, 1.0, 1.0], deadlines_s=[2.0, 0.5, 0.0]))

    # The first is aborted after 2 s, the second expires before that, and the third has what is left.
    assert made["ended"] == {"served": 1, "refused": 0, "expired": 1, "aborted": 1}
    assert (made["wait_s"]["p50"], made["total_s"]["p50"]) == (2, pytest.approx(3))
    assert made["cost"]["attributed"] == pytest.approx(3.0)


@pytest.mark.parametrize("admission", [True, False])
def test_admission_refuses_what_would_come_too_late_and_the_rest_is_answered(tmp_path: Path, admission: bool) -> None:
    # 8 slots of a second each: a capacity of 8 a second, and three times as many come; their deadline is 4 s.
    more = f"[intake]\nadmission = {str(admission).lower()}"
    scenario = scenario_of(tmp_path, [{"name": "a", "slots": 8}], EVEN, more=more)
    arrivals = generate("poisson:rate=24", 2400, Lengths(kind="constant", input_tokens=1, output_tokens=101), seed=2)

    made = simulate(scenario, replace(arrivals, deadlines_s=[4.0] * 2400))
    ended = made["ended"]

    if admission:  # the first seconds are let in without a known rate
        assert 8 * 0.9 < ended["served"] / 100 < 8 * 1.05
        assert ended["refused"] / 2400 > 0.6
        assert ended["expired"] + ended["aborted"] < 0.05 * 2400
    else:
        assert ended["refused"] == 0
        assert ended["expired"] + ended["aborted"] > 0.6 * 2400


def test_a_ceiling_and_a_set_of_tiers_bound_who_serves(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, THREE, EVEN, {"a": 1.0})

    free, ceiling, single = (
        simulate(scenario, at_once(20, **columns))
        for columns in ({}, {"ceilings": ["a"] * 20}, {"only": [("a", "c")] * 20})
    )

    assert set(free["overflow"]["ways"]) == {"a to b", "a to c"}
    assert ceiling["overflow"]["ways"] == {}
    assert set(single["overflow"]["ways"]) == {"a to c"}


def test_tenants_share_a_tier_by_their_weights(tmp_path: Path) -> None:
    keys = "".join(
        f'[auth.keys.{name}]\nhash = "{name * 64}"\ntenant = "{name}"\nweight = {weight}\n'
        for name, weight in (("a", 3), ("b", 1))
    )
    scenario = scenario_of(tmp_path, ONE, EVEN, more=keys)

    # All of a's jobs wait before those of b: alone by their age, b's would wait for 40 s.
    made = simulate(
        replace(scenario, targets=replace(scenario.targets, total_s=36.5)),
        at_once(80, tenants=["a"] * 40 + ["b"] * 40),
    )

    assert {row["tenant"]: row["good"] for row in made["tenants"]} == {
        "a": pytest.approx(27 / 40, abs=0.13),
        "b": pytest.approx(9 / 40, abs=0.13),
    }


def test_who_consents_is_served_below_its_floor_where_all_above_is_full(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, [THREE[1], THREE[2] | {"slots": 1}], EVEN, {"c": 1.0})

    strict, consenting = (simulate(scenario, at_once(40, **columns)) for columns in ({}, {"below_floor": [True] * 40}))

    assert strict["below_floor"] == 0
    assert consenting["below_floor"] > 10
    assert consenting["total_s"]["p95"] < 0.5 * strict["total_s"]["p95"]


def test_a_mark_of_the_expected_wait_overflows_below_the_mark_of_the_depth(tmp_path: Path) -> None:
    ladder = [{"name": "a", "slots": 1}, {"name": "b", "slots": 8}]
    marked = [ladder[0] | {"high_wait_s": 5.0}, ladder[1]]

    without, with_mark = (simulate(scenario_of(tmp_path, tiers, EVEN), at_once(40)) for tiers in (ladder, marked))

    assert without["overflow"]["requests"] == 0  # 40 are below the mark of 64
    assert with_mark["overflow"]["requests"] > 10


def test_overflow_stops_where_it_has_cost_what_it_may_in_an_hour(tmp_path: Path) -> None:
    limit = "max_overflow_cost_per_hour = 5.0"  # a second of b costs 1

    free, limited = (simulate(scenario_of(tmp_path, THREE[:2], EVEN, model=text), at_once(60)) for text in ("", limit))

    assert free["overflow"]["requests"] > 30
    # Four share a second of b: 20 of them cost 5, and four more may run by then.
    assert limited["overflow"]["requests"] <= 24


@pytest.mark.parametrize("spec", ["poisson:rate=1e8", "poisson:rate=1e-6", "bursts:burst_rate=1e8,on_s=1e-3,off_s=1e6"])
def test_absurd_rates_end_soon_with_every_request_accounted_for(spec: str, tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, THREE, EVEN, {"a": 0.9, "c": 0.1})
    made = generate(spec, 1000, Lengths(kind="zipf", input_tokens=1, output_tokens=100_000), seed=1)

    ended = simulate(scenario, replace(made, deadlines_s=[30.0] * 1000))["ended"]

    assert sum(ended.values()) == 1000


def test_requests_over_thousands_of_years_are_refused(tmp_path: Path) -> None:
    made = generate("poisson:rate=1e-9", 1000, Lengths(kind="constant", input_tokens=1, output_tokens=1), seed=1)

    with pytest.raises(InputError, match=r"the last request would come after .*e\+11 s|e\+12 s"):
        simulate(scenario_of(tmp_path, ONE, EVEN), made)


@pytest.mark.parametrize("tenant", [None, "", "x"])
@pytest.mark.parametrize("limit", ["max_depth", "max_total"])
def test_queues_that_are_full_refuse_what_comes(tmp_path: Path, limit: str, tenant: str | None) -> None:
    scenario = scenario_of(tmp_path, ONE, EVEN, more=f"[queue]\n{limit} = 10")

    ended = simulate(scenario, at_once(30, tenants=() if tenant is None else [tenant] * 30))["ended"]

    assert (ended["served"], ended["refused"]) == (11, 19)


@pytest.mark.parametrize("tenants", [(), [""] * 30])
def test_the_longest_wait_of_the_settings_ends_jobs_without_a_deadline(tmp_path: Path, tenants: Sequence[str]) -> None:
    scenario = scenario_of(tmp_path, ONE, EVEN, more="[queue]\nmax_wait_s = 5")

    ended = simulate(scenario, at_once(30, tenants=tenants))["ended"]

    assert (ended["served"], ended["expired"]) == (5, 25)


def test_what_a_tenant_has_above_its_share_of_a_lane_waits_in_the_batch_lane_and_is_served(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ONE, EVEN, more="[queue]\nfair_depth = 10")
    kept: list[Work] = []

    made = simulate(scenario, at_once(30, 0.1, tenants=["x"] * 30), on_end=kept.append)

    assert made["ended"]["served"] == 30
    assert kept[0].lane.count(LANES.index(Lane.BATCH)) == 20


@pytest.mark.parametrize(("at_s", "deadline_s"), [(0.1, 0.7), (0.1, 0.0004), (0.1, 0.57)])
def test_a_job_that_waits_ends_at_its_very_deadline(tmp_path: Path, at_s: float, deadline_s: float) -> None:
    arrivals = replace(at_once(2, 10.0, deadlines_s=[0.0, deadline_s]), at_s=np.array([0, at_s]))
    kept: list[Work] = []

    made = simulate(scenario_of(tmp_path, ONE, EVEN), arrivals, on_end=kept.append)

    assert made["ended"] == {"served": 1, "refused": 0, "expired": 1, "aborted": 0}
    assert kept[0].ended_s[1] == pytest.approx(at_s + deadline_s)
