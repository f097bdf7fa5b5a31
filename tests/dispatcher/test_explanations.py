"""dispatcher/jobs/explanations.py: what would be decided, and why a job went where it went."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest
import pytest_asyncio
import redis

from bitladder.contract import Outcome, State, Usage
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.rq_call import decode_call
from bitladder.settings.access import key_hash, new_key
from dispatcher.app import create_app
from tests.conftest import make_settings

BODY = {"model": "smollm2", "prompt": "Wie spät ist es? Straße, Mühe, Öl."}
TABLES = {
    "rules": {
        "kind": "threshold",
        "rules": [{"when": ["priority >= 9"], "floor": "fp8"}, {"when": ["non_ascii > 0.05"], "floor": "int8"}],
        "otherwise": "int4",
    }
}
KEYS = {name: new_key() for name in ("acme", "other")}


class Intake:
    """An intake in this process, as two tenants see it."""

    def __init__(self, app: Any, **headers: str) -> None:  # noqa: ANN401
        transport = httpx2.ASGITransport(app=app)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://intake", headers=headers)
        self.queue: JobQueue = app.state.intake.queue

    async def route(self, **headers: str) -> dict[str, Any]:
        answer = await self.http.post("/v1/route", json=BODY, headers={"x-request-id": "same", **headers})
        route: dict[str, Any] = answer.raise_for_status().json()
        return route

    async def submit(self) -> str:
        return str((await self.http.post("/v1/jobs", json=BODY)).raise_for_status().json()["id"])

    async def explain(self, job_id: str, name: str = "acme") -> httpx2.Response:
        authorization = {"Authorization": f"Bearer {KEYS[name]}"}
        return await self.http.get(f"/v1/jobs/{job_id}/explain", headers=authorization)


@pytest_asyncio.fixture
async def intake(redis_url: str, store: redis.Redis) -> AsyncIterator[Intake]:
    del store  # it is empty
    keys = {name: {"hash": key_hash(key.encode()), "tenant": name} for name, key in KEYS.items()}
    app = create_app(make_settings(redis_url, policies=TABLES, policy__name="rules", auth__keys=keys))
    async with app.router.lifespan_context(app):
        intake = Intake(app, Authorization=f"Bearer {KEYS['acme']}")
        async with intake.http:
            yield intake


async def make_live(store: redis.Redis, *tiers: str) -> None:
    for tier in tiers:
        store.zadd(f"bl:live:smollm2:{tier}", {"w": 4_000_000_000_000})
        store.zadd("bl:workers", {"w": 4_000_000_000_000})


async def test_a_route_is_what_a_job_would_get_with_every_rule_that_was_looked_at(
    intake: Intake, store: redis.Redis
) -> None:
    await make_live(store, "int8", "fp8")

    route = await intake.route()

    assert list(store.scan_iter("rq:*")) == []
    accepted = (await intake.http.post("/v1/jobs", json=BODY)).json()
    assert {name: route[name] for name in ("floor", "reason", "policy", "features", "queue", "ceiling")} == {
        name: accepted[name] for name in ("floor", "reason", "policy", "features", "queue", "ceiling")
    }
    assert [(rule["rule"], rule["holds"], rule["floor"]) for rule in route["rules"]] == [
        ("priority 5 >= 9", False, "fp8"),
        (route["reason"], True, "int8"),
    ]
    assert (route["allowed"], route["lane"], route["tier"]) == (["int8", "fp8"], "normal", "int8")
    assert (route["jobs_ahead"], route["wait_s"]) == (0, 0.0)
    assert set(route["expected_costs"]) == {"int8", "fp8"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Priority": "9"}, ("fp8", ["fp8"], "urgent", None)),
        ({"X-Max-Tier": "int4"}, ("int4", ["int4"], "normal", "int4")),
        ({"X-Priority": "1"}, ("int8", ["int8", "fp8"], "batch", None)),
        ({"X-Min-Tier": "int8", "X-Max-Tier": "int8"}, ("int8", ["int8"], "normal", "int8")),
    ],
)
async def test_a_route_goes_by_the_headers(intake: Intake, headers: dict[str, str], expected: object) -> None:
    route = await intake.route(**headers)

    assert (route["floor"], route["allowed"], route["lane"], route["ceiling"]) == expected
    assert route["tier"] is None  # no worker lives


async def test_a_route_shows_the_gap_in_a_set_of_tiers_and_what_consent_adds(
    intake: Intake, store: redis.Redis
) -> None:
    await make_live(store, "int4", "int8", "fp8")
    body = BODY | {"provider": {"quantizations": ["int4", "fp8"]}}
    answer = await intake.http.post("/v1/route", json=body, headers={"X-Allow-Below-Floor": "true"})
    route = answer.raise_for_status().json()

    assert (route["floor"], route["allowed"], route["below_floor"]) == ("fp8", ["fp8"], ["int4"])
    assert route["queue"] == "smollm2:fp8:normal:only-int4,fp8"
    job = (await intake.http.post("/v1/jobs", json=body, headers={"X-Allow-Below-Floor": "true"})).json()
    explained = (await intake.explain(job["id"])).json()
    assert (explained["allowed"], explained["below_floor"]) == (["fp8"], ["int4"])
    assert explained["expected"]["jobs_ahead"] == 0


async def test_what_waits_is_counted_and_a_dead_tier_s_job_would_go_up(intake: Intake, store: redis.Redis) -> None:
    await make_live(store, "fp8")
    for _ in range(3):
        await intake.submit()

    route = await intake.route()

    assert (route["tier"], route["jobs_ahead"]) == ("fp8", 3)


async def test_a_job_that_no_tier_may_serve_is_explained(redis_url: str, store: redis.Redis) -> None:
    app = create_app(make_settings(redis_url))
    async with app.router.lifespan_context(app):
        intake = Intake(app)
        job_id = await intake.submit()
        store.hset(f"rq:job:{job_id}", "origin", "smollm2:fp8:normal:max-int4")
        answer = await intake.http.get(f"/v1/jobs/{job_id}/explain")

    assert (answer.status_code, answer.json()["allowed"], answer.json()["expected"]) == (200, [], None)


async def test_of_a_header_that_comes_twice_the_first_counts(intake: Intake) -> None:
    twice = [("X-Priority", "9"), ("x-priority", "1"), ("content-type", "application/json")]
    answer = await intake.http.post("/v1/route", content=msgspec.json.encode(BODY), headers=twice)

    assert answer.json()["lane"] == "urgent"


async def test_a_wrong_request_is_refused_as_everywhere(intake: Intake) -> None:
    for body, status in (({"model": "gone", "prompt": "x"}, 404), ({"model": "smollm2"}, 400)):
        assert (await intake.http.post("/v1/route", json=body)).status_code == status
    refused = await intake.http.post("/v1/route", json=BODY, headers={"X-Priority": "11"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Priority")


async def test_a_job_is_explained_with_its_executions_to_its_owner_alone(intake: Intake, store: redis.Redis) -> None:
    await make_live(store, "int8")
    job_id = await intake.submit()
    waiting = (await intake.explain(job_id)).json()
    await run(intake.queue)

    ended = (await intake.explain(job_id)).json()

    assert (waiting["status"], waiting["expected"]["tier"], waiting["executions"]) == ("queued", "int8", [])
    assert (ended["status"], ended["expected"], ended["attempts"]) == ("finished", None, 2)
    assert [(loss["tier"], loss["code"]) for loss in ended["executions"]] == [("int8", "engine_fault")]
    assert (ended["floor"], ended["tier"], ended["overflowed_from"], ended["cost"]) == ("int8", "fp8", "int8", 0.25)
    assert (ended["served_below_floor"], ended["error"]) == (False, None)
    assert ended["policy"].startswith("rules:")
    assert set(ended["features"]) == {"non_ascii"}
    assert set(ended["costs_elsewhere"]) == {"int8", "fp8"}
    assert [(await intake.explain(name, "other")).status_code for name in (job_id, "none")] == [404, 404]


async def run(queue: JobQueue) -> None:
    """Break the job at its own tier, and answer it at the top one."""
    plans = {tier: claim_plan(queue.settings, "smollm2", tier) for tier in ("int8", "fp8")}
    (first,) = (await queue.claim("w-int8", "smollm2", "int8", plans["int8"], 1)).jobs
    broken = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke", tier="int8")
    await queue.requeue("w-int8", first, first.queue, reason=RequeueReason.CHARGED, last=broken)
    (second,) = (await queue.claim("w-int8", "smollm2", "int8", plans["int8"], 1)).jobs
    outcome = Outcome(
        state=State.FINISHED,
        status=200,
        tier="fp8",
        overflowed_from="int8",
        usage=Usage(completion_tokens=5),
        attempts=2,
        cost=0.25,
        decision=decode_call(second.data).decision,
    )
    await queue.finish("w-int8", [Finished(job=second, outcome=outcome)])
