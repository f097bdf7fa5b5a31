"""GET /v1/jobs, /v1/workers and /v1/tenants, of an intake with API keys on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import redis

from bitladder.settings.access import key_hash, new_key
from bitladder.settings.sections import Settings
from dispatcher.app import create_app
from tests.conftest import make_settings

TENANTS = {"ops": "ops", "acme": "acme", "other": "other"}
KEYS = {name: new_key() for name in TENANTS}
SCOPES = {"ops": ["submit", "read", "ops:read"]}
BODY = {"model": "smollm2", "prompt": "a secret prompt", "max_tokens": 3}


@pytest.fixture
def keyed(redis_url: str, store: redis.Redis) -> Settings:
    keys = {
        name: {
            "hash": key_hash(key.encode()),
            "tenant": TENANTS[name],
            "scopes": SCOPES.get(name, ["submit", "read"]),
            "weight": 3 if name == "acme" else 1,
            "max_queued": 10 if name == "acme" else None,
        }
        for name, key in KEYS.items()
    }
    return make_settings(redis_url, auth__keys=keys)


@pytest.fixture
async def http(keyed: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(keyed)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://intake") as client,
    ):
        yield client


async def get(http: httpx2.AsyncClient, path: str, key: str = "ops", status: int = 200) -> dict[str, Any]:
    answer = await http.get(path, headers={"Authorization": f"Bearer {KEYS[key]}"})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def post(http: httpx2.AsyncClient, key: str, **headers: str) -> str:
    answer = await http.post("/v1/jobs", json=BODY, headers={"Authorization": f"Bearer {KEYS[key]}", **headers})
    return str(answer.raise_for_status().json()["id"])


async def test_an_operator_lists_every_tenant_s_jobs_page_by_page_and_sees_no_prompt(http: httpx2.AsyncClient) -> None:
    ids = [await post(http, "acme", **{"X-Tags": "nightly"}), await post(http, "other"), await post(http, "acme")]
    await http.delete(f"/v1/jobs/{ids[1]}", headers={"Authorization": f"Bearer {KEYS['other']}"})

    first = await get(http, "/v1/jobs?limit=2")
    second = await get(http, f"/v1/jobs?limit=2&after={first['next_cursor']}")

    listed = first["data"] + second["data"]
    assert [row["id"] for row in listed] == [ids[1], ids[2], ids[0]]
    assert [row["state"] for row in listed] == ["cancelled", "queued", "queued"]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert first["counts"] == {"queued": 2, "running": 0, "finished": 0, "failed_or_expired": 0, "cancelled": 1}
    assert first["counted"] == "jobs of all tenants in the queues of all models"
    assert listed[2]["tags"] == ["nightly"]
    assert (listed[2]["tenant"], listed[2]["lane"], listed[2]["cost"]) == ("acme", "normal", None)
    assert listed[0]["error"]["code"] == "cancelled"
    assert "secret" not in str(first)


async def test_a_key_without_ops_read_lists_its_own_tenant_s_jobs_alone(http: httpx2.AsyncClient) -> None:
    own = await post(http, "acme")
    await post(http, "other")

    listed = await get(http, "/v1/jobs", key="acme")
    refused = await get(http, "/v1/jobs?tenant=other", key="acme", status=403)
    cursor = (await get(http, "/v1/jobs?limit=1"))["next_cursor"]
    foreign = await get(http, f"/v1/jobs?after={cursor}", key="acme", status=400)

    assert [row["id"] for row in listed["data"]] == [own]
    assert listed["counts"] == {"queued_or_running": 1}
    assert listed["looked_at"] is None
    assert "'ops:read'" in refused["error"]["message"]
    assert "same filters" in foreign["error"]["message"]


WRONG = [
    ("state=done", "state", "state must be one of queued, running, finished, failed, cancelled, expired"),
    ("lane=fast", "lane", "lane must be one of urgent, normal, batch, got 'fast'"),
    ("model=gpt", "model", "model must be one of smollm2, got 'gpt'"),
    ("tier=int2", "tier", "tier must be one of int4, int8, fp8, got 'int2'"),
    ("older_than=-1", "older_than", "older_than must be a number of seconds from 0 to 1e+09, got '-1'"),
    ("older_than=nan", "older_than", "got 'nan'"),
    ("tag=", "tag", "tag must be 1 to 512 characters, got ''"),
    ("stat=failed", "stat", "there is no filter 'stat': expected some of state, model, tier"),
    ("tag=a&tag=b", "tag", "tag must be there once"),
    ("limit=0", "limit", "limit must be a whole number from 1 to 500, got '0'"),
    ("after=x", "after", "after must be the next_cursor of an earlier page, got 'x'"),
]


async def test_a_wrong_filter_is_answered_with_its_name_its_value_and_what_is_expected(
    http: httpx2.AsyncClient,
) -> None:
    for query, param, message in WRONG:
        error = (await get(http, f"/v1/jobs?{query}", status=400))["error"]

        assert error["param"] == param
        assert message in error["message"]


async def test_tenants_are_listed_with_their_jobs_weight_and_limit(http: httpx2.AsyncClient) -> None:
    for _ in range(2):
        await post(http, "acme")

    answer = await get(http, "/v1/tenants")

    assert [row["tenant"] for row in answer["data"]] == ["acme", "default", "ops", "other"]
    acme = answer["data"][0]
    assert {name: acme[name] for name in ("waiting", "running", "weight", "limit", "keys")} == {
        "waiting": 2,
        "running": 0,
        "weight": 3,
        "limit": 10,
        "keys": ["acme"],
    }
    assert answer["data"][3]["limit"] is None
