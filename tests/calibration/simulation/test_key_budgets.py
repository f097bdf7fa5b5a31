"""What budgets of API keys refuse in a simulation, and what the scripts decide in a real Valkey of the same calls."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bitladder.queue.run_script import Call, run_sync
from bitladder.queue.server.connection import connect_sync
from bitladder.routing.cost import NO_PACES, read_paces
from calibration.simulation.arrivals import Arrivals
from calibration.simulation.run_simulation import simulate
from calibration.simulation.scripted import scripted_queue
from calibration.simulation.scripted.key_budgets import measured_by, payers_of
from calibration.simulation.scripted.script_runner import ScriptRunner
from calibration.simulation.simulated_work import End, Work
from tests.calibration.simulation.fleets import curve_of, scenario_of
from tests.conftest import OwnValkey

# A token takes 10 ms, whatever runs beside it: 101 tokens take a second, which costs 1.
EVEN = curve_of({1: 0.01, 4: 0.01})
TIERS = [
    {"name": name, "slots": slots, "high": 2, "low": 1, "price_per_hour": 3600.0}
    for name, slots in (("a", 1), ("b", 4))
]
DAY_S = 86_400.0


def key(name: str, tenant: str, budget: float | None, scopes: str = "submit") -> str:
    lines = [
        f"[auth.keys.{name}]",
        f'hash = "{name.encode().hex():0>64}"',
        f'tenant = "{tenant}"',
        f'scopes = ["{scopes}"]',
    ]
    return "\n".join(lines + ([] if budget is None else [f"budget_per_day = {budget}"])) + "\n"


def coming(at_s: list[float], tenants: list[str], tokens: float = 101) -> Arrivals:
    count = len(at_s)
    columns: dict[str, Any] = {"tenants": tenants} if tenants else {}
    return Arrivals(
        at_s=np.array(at_s), input_tokens=np.full(count, 10.0), output_tokens=np.full(count, tokens), **columns
    )


@pytest.mark.parametrize("tenant", ["x", ""])
def test_a_budget_takes_as_many_requests_as_it_pays_for_and_refuses_the_others_until_midnight(
    tmp_path: Path, tenant: str
) -> None:
    scenario = scenario_of(tmp_path, TIERS[:1], EVEN, more=key("k", tenant or "default", 5.5))
    # Each costs 1, and is over before the next one comes: 5 fit, on each day.
    at_s = [day * DAY_S + 2.5 * number for day in (0, 1) for number in range(20)]
    kept: list[Work] = []

    made = simulate(scenario, coming(at_s, [tenant] * 40 if tenant else []), on_end=kept.append)

    assert list(kept[0].ends) == 2 * ([End.SERVED] * 5 + [End.REFUSED] * 15)
    assert (made["ended"]["refused"], made["over_budget"]) == (30, 30)


def test_a_budget_of_one_tenant_refuses_nothing_of_another(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, TIERS[:1], EVEN, more=key("k", "x", 2.5) + key("l", "y", None))

    made = simulate(scenario, coming([2.5 * number for number in range(20)], ["x", "y"] * 10))

    assert {row["tenant"]: row["served"] for row in made["tenants"]} == {"x": 0.2, "y": 1}


def test_a_request_that_finds_the_queue_full_is_not_charged(tmp_path: Path) -> None:
    more = "[queue]\nmax_depth = 1\n" + key("k", "x", 4.5)
    scenario = scenario_of(tmp_path, TIERS[:1], EVEN, more=more)
    kept: list[Work] = []

    # The first one measures; then four come at once, of which one runs, one waits, and two find the queue full.
    simulate(scenario, coming([0, 2.5, 2.5, 2.5, 2.5, 10.5, 13.5], ["x"] * 7), on_end=kept.append)

    served, refused = End.SERVED, End.REFUSED
    assert list(kept[0].ends) == [served, served, served, refused, refused, served, refused]


def test_of_several_keys_of_a_tenant_the_one_with_the_largest_budget_pays(tmp_path: Path) -> None:
    more = key("k", "x", 2) + key("l", "x", 3) + key("m", "y", 1) + key("n", "y", None) + key("o", "x", None, "read")

    assert payers_of(scenario_of(tmp_path, TIERS, EVEN, more=more).settings) == {"x": "l"}


def test_budgets_decide_as_the_scripts_do_in_a_real_valkey(
    tmp_path: Path, own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[ScriptRunner, Call, Any]] = []
    run = ScriptRunner.run

    def noting(runner: ScriptRunner, call: Call, now_ms: int) -> Any:  # noqa: ANN401
        calls.append((runner, call, run(runner, call, now_ms)))
        return calls[-1][2]

    monkeypatch.setattr(ScriptRunner, "run", noting)
    # The server's clock says which day is charged.
    monkeypatch.setattr(scripted_queue, "EPOCH_MS", int(time.time() // DAY_S * DAY_S) * 1000)
    count, random = 300, np.random.default_rng(3)
    more = "[queue]\nmax_depth = 2\n" + key("k", "x", 25) + key("l", "y", 12)
    at_s = np.cumsum(random.exponential(0.15, count)).tolist()
    arrivals = coming(at_s, random.choice(["x", "y", "z"], count).tolist())

    made = simulate(scenario_of(tmp_path, TIERS, EVEN, {"a": 0.5, "b": 0.5}, more=more), arrivals)

    client, charges = connect_sync(own_valkey.settings), []
    for _, call, ours in calls:
        theirs = run_sync(client, call)
        if call.script == "budget":
            assert float(ours[2]) == pytest.approx(float(theirs[1]), rel=1e-9)
            assert bool(ours[1]) == bool(theirs[0])
            charges.append((float(call.args[1]), bool(theirs[0])))
    assert 20 < sum(is_refused for _, is_refused in charges) == made["over_budget"] < made["ended"]["refused"]
    assert any(amount < 0 for amount, _ in charges)  # of what the queue refused
    for tier in ("a", "b"):
        paces = read_paces(cast("dict[bytes, bytes]", client.hgetall(f"bl:pace:m:{tier}")))
        assert measured_by(calls[0][0], "m", tier) == paces != NO_PACES
