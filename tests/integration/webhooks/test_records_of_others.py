"""Odd records that another program writes beside ours stop neither webhooks nor batches nor files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.conftest import Stack, wait_until
from tests.integration.batches.test_batches import URL, jsonl, lines_of
from tests.integration.webhooks.receiver import receiving
from tests.integration.webhooks.test_deliveries import LOOPBACK, first, submit

ODD = "odd"


def _spoil(store: redis.Redis, url: str) -> None:
    for event in (
        b"\xff",
        b"1 finished id {}x",
        b"9" * 400 + b" finished id {}",
        b'1 finished id {"key":5}',
        b'1 finished id {"tenant":"odd"}',
        b'1 nonsense resp_x {"url":"http://127.0.0.1:1/","secret":"none"}',
        b'1 finished \xff {"url":"http://[/","secret":"none"}',
        b'1 finished id {"url":"%s/odd","secret":"none"}' % url.encode(),
        b'1 finished id {"url":"file:///etc/passwd","secret":"none"}',
    ):
        store.rpush("bl:webhooks:events", event)
    for name in (b"a", b"\xff", b"url_odd", b"key_odd", b"we_odd", b"we_other"):
        store.zadd("bl:webhooks:targets", {name: 0})
        store.zadd(b"bl:webhooks:due:" + name, {b"evt_1": 0, b"\xff": 1})
        store.hset(b"bl:webhooks:pending:" + name, mapping={b"evt_1": b"{}", b"\xff": b"\xff"})
        store.hset(b"bl:webhooks:endpoint:" + name, mapping={"url": url, "secret": "none", "created_at": "x"})
    for target in ("strings", "pending"):
        store.zadd("bl:webhooks:targets", {target: 0})
        store.set(f"bl:webhooks:pending:{target}", "x")
        store.set(f"bl:webhooks:endpoint:{target}", "x")
    store.set("bl:webhooks:due:strings", "x")
    store.zadd("bl:webhooks:due:pending", {"evt_1": 0})
    store.sadd("bl:webhooks:tenants", ODD, b"\xff")
    store.zadd(f"bl:webhooks:endpoints:{ODD}", {b"we_odd": 1, b"\xff": 2, b"pending": 3})
    store.set("bl:webhooks:leases", "x")
    store.zadd("bl:webhooks:watched", {b"none": 0, b"\xff": 0, b"string": 0})
    store.set("rq:job:string", "x")
    store.hset("bl:batch:batch_fence", mapping={"fence": "x", "status": "validating"})
    fields: Any = {"spec": "x", "fence": "1", "status": "x", "progress": "x", "created": "x", "expires": "x"}
    store.hset("bl:batch:batch_fields", mapping=fields)
    store.set("bl:batch:batch_string", "x")
    for name in (b"batch_fence", b"batch_fields", b"batch_string", b"\xff", b"none"):
        store.zadd("bl:batch_leases", {name: 0})
    store.hset(b"bl:batch:\xff", mapping={"status": b"\xff"})


def test_webhooks_and_batches_go_on_beside_odd_records(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path
) -> None:
    stack = make_stack(**LOOPBACK, BITLADDER_FILES__STORE=str(tmp_path))
    with receiving() as receiver:
        _spoil(store, receiver.url)
        stack.intake()
        stack.worker("int4")
        submit(stack, f"{receiver.url}/fine")
        content = {"file": ("in.jsonl", jsonl(lines_of(2)))}
        file = stack.http.post("/v1/files", files=content, data={"purpose": "batch"}).json()["id"]
        new = {"input_file_id": file, "endpoint": URL, "completion_window": "24h"}
        batch = stack.http.post("/v1/batches", json=new).json()["id"]

        assert first(receiver, "/fine")
        wait_until(lambda: stack.http.get(f"/v1/batches/{batch}").json()["status"] == "completed", "it is completed")
        assert stack.http.get("/v1/batches/batch_fields").status_code == 404
        assert stack.http.get("/readyz").status_code == 200
