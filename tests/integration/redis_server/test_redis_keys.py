"""docs/redis-keys.md against a running system: every key that is there is listed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.client import Client
from tests.conftest import ROOT, Stack, free_port, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


def documented_patterns() -> list[re.Pattern[str]]:
    text = (ROOT / "docs" / "redis-keys.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    keys = [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]
    return [re.compile(re.sub(r"<[a-z]+>", ".+", key)) for key in keys]


def test_every_key_of_a_running_system_is_documented(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8"):
        stack.worker(tier)
    with Client(stack.url) as client:
        for options in ({}, {"idempotency_key": "once"}, {"max_tier": "int4"}, {"priority": 9}):
            client.submit(BODY, **options)
        list(client.stream(BODY))
        client.cancel(client.submit(BODY | {"max_tokens": 50_000})["id"])
    queue = Queue("smollm2:int4:normal", connection=store, serializer=JSONSerializer)
    theirs = queue.enqueue("workers.generate", body=BODY)
    wait_until(lambda: theirs.get_status(refresh=True) == "finished", "RQ's job is finished")

    keys = [key.decode() if isinstance(key, bytes) else str(key) for key in store.keys("*")]

    patterns = documented_patterns()
    assert [key for key in keys if not any(pattern.fullmatch(key) for pattern in patterns)] == []


def test_rq_dashboard_shows_our_queues_and_jobs(make_stack: Callable[..., Stack], redis_url: str) -> None:
    stack, port = make_stack(), free_port()
    stack.intake()
    stack.worker("int4")
    with Client(stack.url) as client:
        done = client.wait(client.submit(BODY)["id"], timeout_s=10)
    command = [sys.executable, "-m", "rq_dashboard", "--bind", "127.0.0.1", "--port", str(port), "-u", redis_url, "-j"]
    dashboard = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _get(f"http://127.0.0.1:{port}/0/data/queues.json") is not None, "rq-dashboard answers")
        queues = _get(f"http://127.0.0.1:{port}/0/data/queues.json")
        job = _get(f"http://127.0.0.1:{port}/0/data/job/{done['id']}.json")
    finally:
        dashboard.kill()
        dashboard.wait()

    assert queues
    assert "smollm2:int4:normal" in [queue["name"] for queue in queues["queues"]]
    assert job
    assert job["status"] == "finished"
    assert "aa bb" not in str(job["description"])


def _get(url: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = httpx2.get(url, timeout=5).raise_for_status().json()
    except (httpx2.HTTPError, ValueError):
        return None
    return content
