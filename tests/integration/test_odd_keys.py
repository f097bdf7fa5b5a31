"""A queue whose list in Redis is none: the others go on, and it is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.client import Client
from tests.conftest import ROOT, Stack, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
BROKEN = "smollm2:int4:normal"


@pytest.fixture
def stack(make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path) -> Iterator[Stack]:
    store.set(f"rq:queue:{BROKEN}", "x")
    stack = make_stack(BITLADDER_WORKER__DRAIN_GRACE_S="0")
    with (tmp_path / "log").open("wb") as stack.output:
        stack.intake()
        for tier in ("int4", "int8"):
            stack.worker(tier)
        yield stack


def logged(path: Path, event: str) -> list[dict[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line["event"] == event]


def test_one_list_of_a_wrong_type_stops_no_other_queue_of_its_tier(
    stack: Stack, store: redis.Redis, tmp_path: Path
) -> None:
    refused = stack.http.post("/v1/jobs", json=BODY)
    with Client(stack.url) as client:
        others: list[dict[str, Any]] = [{"priority": 1}, {"max_tier": "int4"}, {"min_tier": "int8"}]
        served = [client.wait(client.submit(BODY, **one)["id"], timeout_s=20) for one in others]

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_broken")
    assert f"rq:queue:{BROKEN}" in refused.json()["error"]["message"]
    assert [(job["status"], job["tier"]) for job in served] == [
        ("finished", "int4"),
        ("finished", "int4"),
        ("finished", "int8"),
    ]
    assert "WRONGTYPE" in stack.http.get("/readyz").raise_for_status().json()["broken_queues"][BROKEN]
    tiers = stack.http.get("/v1/queues").json()["data"][0]["tiers"]
    problems = {queue["queue"]: queue["problem"] for tier in tiers for queue in tier["queues"] if queue["problem"]}
    assert list(problems) == [BROKEN]
    shown = [sys.executable, "-m", "dispatcher.cli.main", "queues"]
    assert "no list" in subprocess.run(shown, cwd=ROOT, env=stack.environment, capture_output=True, text=True).stdout

    wait_until(lambda: logged(tmp_path / "log", "queue broken: it takes and gives no jobs") != [], "it is named")
    store.delete(f"rq:queue:{BROKEN}")
    wait_until(lambda: logged(tmp_path / "log", "queue whole again") != [], "and that it is mended")
    with Client(stack.url) as client:
        assert client.wait(client.submit(BODY)["id"], timeout_s=20)["tier"] == "int4"
    (named,) = logged(tmp_path / "log", "queue broken: it takes and gives no jobs")
    assert named["key"] == f"rq:queue:{BROKEN}"


def test_a_job_that_runs_while_its_list_is_overwritten_ends_where_people_look(stack: Stack, store: redis.Redis) -> None:
    store.delete(f"rq:queue:{BROKEN}")
    with Client(stack.url) as client:
        running = client.submit(BODY | {"max_tokens": 50_000}, max_tier="int4")["id"]
        wait_until(lambda: client.result(running)["status"] == "running", "it runs")
        store.set(f"rq:queue:{BROKEN}:max-int4", "x")
        stack.processes[1].terminate()  # it hands the job back, and its list is none
        over = client.wait(running, timeout_s=20)

    assert over["error"]["code"] == "queue_broken"
    assert [job["id"] for job in stack.http.get("/v1/dead").json()["data"]] == [running]
    assert stack.http.post("/v1/dead/release", json={"ids": [running]}).json()["released"] == []
    store.delete(f"rq:queue:{BROKEN}:max-int4")
    assert stack.http.post("/v1/dead/release", json={"ids": [running]}).json()["released"] == [running]
