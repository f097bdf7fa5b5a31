"""What a request may cost: X-Max-Cost, and the daily budget of an API key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bitladder.queue.calls.spending import Spent, spend_call
from bitladder.queue.calls.upkeep import budget_call
from bitladder.queue.run_script import run_sync
from bitladder.settings.access import KeySettings, key_hash, new_key
from dispatcher.app import create_app
from tests.conftest import make_settings
from tests.workers.test_pump import running

KEY = new_key()
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 100}
# int4: 100 tokens cost 0.7 / 3600 s * 1 s = 0.000194; int8: 0.000278; fp8: nothing was measured.
INT4_COST = 0.7 / 3600


class Intake:
    def __init__(self, http: httpx2.AsyncClient, store: redis.Redis) -> None:
        self.http, self.store = http, store

    async def submit(self, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post("/v1/jobs", json=BODY, headers=named)

    @property
    def used(self) -> float:
        (key,) = self.store.keys("bl:budget:*")
        return float(self.store.hget(key, "acme") or 0)


@pytest_asyncio.fixture
async def intake(redis_url: str, store: redis.Redis) -> AsyncIterator[Intake]:
    for tier, share_s in (("int4", 10), ("int8", 10)):
        store.hset(f"bl:pace:smollm2:{tier}", mapping={"1": f"10 1000 {share_s} {share_s}", "last": "1"})
    keys = {"acme": {"hash": key_hash(KEY.encode()), "tenant": "acme", "budget_per_day": 2.5 * INT4_COST}}
    app = create_app(make_settings(redis_url, auth__keys=keys))
    async with app.router.lifespan_context(app):
        await app.state.intake.budgets.refresh()
        transport, headers = httpx2.ASGITransport(app=app), {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://intake", headers=headers) as http:
            yield Intake(http, store)


async def test_a_budget_that_is_used_up_by_what_is_expected_of_queued_jobs_says_when_it_opens_again(
    intake: Intake,
) -> None:
    answers = [await intake.submit() for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 429]
    error = answers[2].json()["error"]
    assert (error["code"], error["type"]) == ("budget_exceeded", "rate_limit_error")
    assert "[auth.keys.acme].budget_per_day" in error["message"]
    assert 0 < int(answers[2].headers["retry-after"]) <= 86_400
    assert answers[2].headers["x-should-retry"] in ("true", "false")
    assert intake.used == pytest.approx(2 * INT4_COST)


async def test_a_repeat_is_not_charged_and_is_answered_when_the_budget_is_used_up(intake: Intake) -> None:
    first, again = await intake.submit(idempotency_key="k"), await intake.submit(idempotency_key="k")
    used_by_one = intake.used
    await intake.submit()
    refused, at_the_end = await intake.submit(), await intake.submit(idempotency_key="k")

    assert first.json()["id"] == again.json()["id"] == at_the_end.json()["id"]
    assert used_by_one == pytest.approx(INT4_COST)
    assert refused.status_code == 429


async def test_a_maximum_cost_keeps_a_request_from_dearer_tiers(intake: Intake) -> None:
    urgent = await intake.submit(x_priority="9", x_max_cost="0.0002")
    refused = await intake.submit(x_max_cost="0.0001", x_max_tier="int8")

    assert (urgent.json()["floor"], urgent.json()["ceiling"]) == ("int4", "int4")
    assert urgent.json()["reason"].endswith("held at a maximum")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "max_cost_exceeded", "X-Max-Cost")
    assert "0.000194444 at int4, 0.000277778 at int8" in error["message"]


@pytest.mark.parametrize("value", ["0", "-1", "NaN", "1e309", "-inf", "", "1_0", "ten", "٣"])
async def test_a_maximum_cost_that_is_no_amount_is_refused_by_name(intake: Intake, value: str) -> None:
    answer = await intake.http.post("/v1/jobs", json=BODY, headers={b"X-Max-Cost": value.encode()})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Max-Cost"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_budget_that_is_no_amount_is_refused_at_load(value: float) -> None:
    with pytest.raises(ValidationError, match="budget_per_day"):
        KeySettings(hash=key_hash(b"x"), tenant="t", budget_per_day=value)


def charge(store: redis.Redis, expected: float, budget: float) -> bool:
    return not run_sync(store, budget_call("k", expected, budget))[0]


async def test_once_a_job_has_run_the_budget_has_paid_what_it_cost(intake: Intake, redis_url: str) -> None:
    async with running(make_settings(redis_url)):
        answer = await intake.http.post("/v1/completions", json=BODY, headers={"X-Max-Tier": "int4"})
        done = await intake.http.get(f"/v1/jobs/{answer.headers['x-job-id']}")

    assert float(answer.headers["x-cost"]) == done.json()["cost"]
    assert 0 < done.json()["cost"] < INT4_COST
    assert intake.used == pytest.approx(done.json()["cost"], rel=1e-3)


def test_a_budget_is_never_overspent_by_more_than_what_is_in_flight_costs_beyond_its_estimates(
    store: redis.Redis,
) -> None:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10), st.booleans()), max_size=20))
    def holds(jobs: list[tuple[float, float, bool]]) -> None:
        store.flushdb()
        spent = running_beyond = bound = 0.0
        now_ms = int(store.time()[0]) * 1000
        for number, (expected, cost, ends) in enumerate(jobs):
            if not charge(store, expected, 10):
                continue
            spent, beyond = spent + cost, max(0.0, cost - expected)
            bound = 10 + running_beyond + beyond
            if ends:
                settled = Spent(number=number)
                settled.add_payer("k", now_ms, cost - expected)
                run_sync(store, spend_call("w", "m", "t", settled))
            else:
                running_beyond += beyond

        assert spent <= bound + 1e-6

    holds()
