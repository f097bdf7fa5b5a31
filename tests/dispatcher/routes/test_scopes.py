"""What each scope opens, by the table of all routes, so that no new route can be forgotten."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from bitladder.settings.access import key_hash, new_key
from dispatcher.app import create_app
from dispatcher.auth import Requirement
from dispatcher.routes.table import OPERATIONS
from tests.conftest import make_settings

SCOPES = {
    "watcher": ["ops:read"],
    "supervisor": ["submit", "read", "ops:read"],
    "orders": ["ops:write"],
    "operator": ["ops"],
    "acme": ["submit", "read"],
}
KEYS = {name: new_key() for name in SCOPES}
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
WRITING = [operation for operation in OPERATIONS if operation.method != "GET"]
READING = [operation for operation in OPERATIONS if operation.method == "GET"]


@pytest.fixture
async def http(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    keys = {
        name: {"hash": key_hash(key.encode()), "tenant": name, "scopes": SCOPES[name]} for name, key in KEYS.items()
    }
    app = create_app(make_settings(redis_url, auth__keys=keys))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://intake") as client,
    ):
        yield client


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def path_of(template: str) -> str:
    return re.sub(r"\{\w+\}", "x", template)


async def test_a_key_that_only_reads_what_operators_see_may_use_no_route_that_writes(http: httpx2.AsyncClient) -> None:
    for operation in WRITING:
        answer = await http.request(operation.method, path_of(operation.path), headers=bearer("watcher"))

        is_missing = "NotImplemented" in operation.errors  # such a route does nothing for anybody
        assert answer.status_code == (501 if is_missing else 403), (operation.method, operation.path)
    assert len(WRITING) > 20


async def test_a_key_that_only_gives_operators_orders_reads_nothing_that_they_see(http: httpx2.AsyncClient) -> None:
    private = [operation for operation in READING if operation.requires is Requirement.OPS_READ]
    for operation in private:
        answer = await http.get(path_of(operation.path), headers=bearer("orders"))

        assert answer.status_code == 403, operation.path
        assert "'ops:read'" in answer.json()["error"]["message"]
    assert "/v1/queues" in {operation.path for operation in private}


async def test_the_scope_ops_of_older_configurations_is_both_of_them(http: httpx2.AsyncClient) -> None:
    for_operators = (Requirement.OPS_READ, Requirement.OPS_WRITE)
    for operation in OPERATIONS:
        if operation.requires in for_operators and not operation.path.endswith("/stream"):
            body = b"[]" if operation.body else None  # of no route that takes a body
            path = path_of(operation.path)
            answer = await http.request(operation.method, path, headers=bearer("operator"), content=body)

            assert answer.status_code in ((400,) if body else (200, 404)), (operation.method, operation.path)


async def test_reading_another_tenant_s_job_is_no_right_to_cancel_it(http: httpx2.AsyncClient) -> None:
    job = (await http.post("/v1/jobs", json=BODY, headers=bearer("acme"))).json()["id"]
    new = {"model": "smollm2", "input": "aa", "background": True}
    response = (await http.post("/v1/responses", json=new, headers=bearer("acme"))).json()["id"]
    upload: dict[str, Any] = {"files": {"file": ("in.jsonl", b'{"custom_id": "a"}\n')}, "data": {"purpose": "batch"}}
    file_id = (await http.post("/v1/files", headers=bearer("acme"), **upload)).json()["id"]
    spec = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = (await http.post("/v1/batches", json=spec, headers=bearer("acme"))).json()["id"]

    for path in (f"/v1/jobs/{job}", f"/v1/responses/{response}", f"/v1/batches/{batch}"):
        assert (await http.get(path, headers=bearer("supervisor"))).status_code == 200
    for method, path in (
        ("DELETE", f"/v1/jobs/{job}"),
        ("DELETE", f"/v1/responses/{response}"),
        ("POST", f"/v1/responses/{response}/cancel"),
        ("POST", f"/v1/batches/{batch}/cancel"),
    ):
        refused = await http.request(method, path, headers=bearer("supervisor"))
        assert refused.status_code == 403
        assert "ops:write" in refused.json()["error"]["message"]
    assert (await http.get(f"/v1/jobs/{job}", headers=bearer("acme"))).json()["status"] == "queued"
