"""What /v1/costs and `bitladder costs` say of the sums in Redis."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import redis
from starlette.applications import Starlette
from structlog.testing import capture_logs

from bitladder.cli.ops.costs import ladder
from bitladder.cli.ops.operations import operations
from bitladder.queue.calls.spending import Spent, spend_call
from bitladder.queue.run_script import run_sync
from bitladder.settings.access import key_hash, new_key
from dispatcher.app import create_app
from tests.conftest import ROOT, make_settings

OPS, ACME = new_key(), new_key()
KEYS = {
    "ops": {"hash": key_hash(OPS.encode()), "tenant": "house", "scopes": ["ops"]},
    "acme": {"hash": key_hash(ACME.encode()), "tenant": "acme", "scopes": ["read"]},
}


def spend(store: redis.Redis) -> None:
    """Have int4 write 3,000 tokens for 0.003 and fp8 1,000 for 0.004; int8 has written some before."""
    int4 = Spent(number=1, seconds=3600, rent=0.7)
    int4.add_tenant("acme", 0.002, 2, 2000)
    int4.add_tenant("beta", 0.001, 1, 1000)
    fp8 = Spent(number=1, seconds=360, rent=0.32)
    fp8.add_tenant("acme", 0.004, 1, 1000)
    for tier, spent in (("int4", int4), ("fp8", fp8)):
        run_sync(store, spend_call("w", "smollm2", tier, spent))


async def ask(app: Starlette, key: str, **query: Any) -> Any:  # noqa: ANN401  (JSON)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://intake") as http:
            answer = await http.get("/v1/costs", params=query, headers={"Authorization": f"Bearer {key}"})
            return answer.json()


@pytest.fixture
def app(redis_url: str, store: redis.Redis) -> Starlette:
    spend(store)
    return create_app(make_settings(redis_url, auth__keys=KEYS))


async def test_operators_see_every_tier_with_its_rent_and_both_baselines(app: Starlette) -> None:
    report = await ask(app, OPS, by="tier", days=1)

    assert [(row["tier"], row["requests"], row["tokens"]) for row in report["data"]] == [
        ("fp8", 1, 1000),
        ("int4", 3, 3000),
    ]
    total = report["total"]
    assert total["attributed"] == pytest.approx(0.007)
    assert total["rent"] == pytest.approx(1.02)
    assert total["all_on_top_tier"] == pytest.approx(0.016)
    assert total["all_on_lowest_tier"] == pytest.approx(0.004)
    assert total["saving_per_request"] == pytest.approx(0.009 / 4)


async def test_a_tenant_sees_its_own_requests_and_no_rent(app: Starlette) -> None:
    report = await ask(app, ACME, by="tenant")

    assert [row["tenant"] for row in report["data"]] == ["acme"]
    assert report["total"]["attributed"] == pytest.approx(0.006)
    assert report["total"]["rent"] is None


@pytest.mark.parametrize(("query", "param"), [({"by": "x"}, "by"), ({"days": 91}, "days"), ({"days": "nan"}, "days")])
async def test_another_question_is_refused_by_name(app: Starlette, query: dict[str, Any], param: str) -> None:
    assert (await ask(app, OPS, **query))["error"]["param"] == param


def test_the_command_reads_the_same_from_redis_itself(
    store: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(store)
    store.hset("bl:pace:smollm2:int8", mapping={"4": "1 10 0.1 0.4", "last": "4", "x": "y", "8": "nonsense"})
    monkeypatch.setenv("BITLADDER_REDIS__URL", redis_url)

    for tier, share_s in (("int4", 2.0), ("fp8", 0.1)):
        store.hset(f"bl:pace:smollm2:{tier}", mapping={"4": f"1 10 {share_s} {4 * share_s}", "last": "4"})

    report = operations(None, None, str(ROOT / "bitladder.toml")).costs("day", 2)

    assert len(report["data"]) == 1
    assert report["total"]["requests"] == 4
    assert report["dominated"] == {"smollm2": {"int4": "fp8"}}


def test_the_ladder_shows_what_each_tier_s_tokens_cost_and_what_beats_it(
    store: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(store)
    for tier, share_s in (("int4", 2.0), ("fp8", 0.1)):
        store.hset(f"bl:pace:smollm2:{tier}", mapping={"4": f"1 10 {share_s} {4 * share_s}", "last": "4"})
    monkeypatch.setenv("BITLADDER_REDIS__URL", redis_url)

    ladder(days=1, as_json=True, config=str(ROOT / "bitladder.toml"))

    shown = [
        (row["tier"], row["requests"], row["cost_per_1000_tokens"], row["dominated_by"])
        for row in json.loads(capsys.readouterr().out)
    ]
    assert shown == [("int4", 3, 0.001, "fp8"), ("int8", 0, None, None), ("fp8", 1, 0.004, None)]
    ladder(days=1, config=str(ROOT / "bitladder.toml"))
    assert "dominated by" in capsys.readouterr().out


async def test_a_tier_that_a_higher_one_beats_is_dominated_in_the_list_of_models_and_once_in_the_log(
    redis_url: str, store: redis.Redis
) -> None:
    for tier, share_s in (("int4", 2.0), ("int8", 1.0)):
        store.hset(f"bl:pace:smollm2:{tier}", mapping={"16": f"1 10 {share_s} {16 * share_s}", "last": "16"})
    app = create_app(make_settings(redis_url))
    async with app.router.lifespan_context(app):
        app.state.intake.budgets.dominated = {}  # whatever the background has seen already
        with capture_logs() as lines:
            await app.state.intake.budgets.refresh()
            await app.state.intake.budgets.refresh()
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://intake") as http:
            model = (await http.get("/v1/models/smollm2")).json()

    assert model["dominated"] == {"int4": "int8"}
    assert len([line for line in lines if line["event"].startswith("tier dominated")]) == 1
