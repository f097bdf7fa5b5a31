"""A queue whose list in Redis is none: the others go on, and it is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from bitladder.client import Client
from tests.conftest import Stack, wait_until
from tests.warm_start import BITLADDER

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
    assert "no list" in BITLADDER.run("bitladder.cli.main", "queues", env=stack.environment).stdout

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
    assert [job["id"] for job in stack.http.get("/v1/dead-letters").json()["data"]] == [running]
    assert stack.http.post("/v1/dead-letters/release", json={"ids": [running]}).json()["released"] == []
    store.delete(f"rq:queue:{BROKEN}:max-int4")
    assert stack.http.post("/v1/dead-letters/release", json={"ids": [running]}).json()["released"] == [running]


# Of a worker, its tier and its model: what one of them lives by.
LIVED_BY = [
    "bl:workers", "bl:live:smollm2:int4", "bl:inflight:{worker}", "bl:unbegun:{worker}", "bl:cancel:{worker}",
    "bl:turn:smollm2:int4", "bl:wake:smollm2:int4", "rq:worker:{worker}", "rq:workers", "rq:queues",
    "rq:workers:smollm2:int4:normal", "rq:wip:smollm2:int4:normal", "bl:served:smollm2",
]  # fmt: skip


@pytest.mark.parametrize("overwrite", ["string", "stream"])
def test_a_worker_puts_right_what_it_lives_by_and_its_jobs_go_on(
    make_stack: Callable[..., Stack], store: redis.Redis, overwrite: str
) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    with Client(stack.url) as client:
        running = client.submit(BODY | {"max_tokens": 2000})["id"]  # 10 s, two renewals
        wait_until(lambda: client.result(running)["status"] == "running", "it runs")
        worker = client.result(running)["worker"]
        for key in (one.format(worker=worker) for one in LIVED_BY):
            store.delete(key)
            if overwrite == "string":
                store.set(key, "x")
            else:
                store.xadd(key, {"a": "b"})
        served = client.wait(client.submit(BODY)["id"], timeout_s=20)
        cancelled = client.submit(BODY | {"max_tokens": 50_000})["id"]
        wait_until(lambda: client.result(cancelled)["status"] == "running", "it runs too")
        store.delete(f"bl:cancel:{worker}")
        store.set(f"bl:cancel:{worker}", "x")
        client.cancel(cancelled)

        assert client.wait(cancelled, timeout_s=20)["status"] == "cancelled"
        over = client.wait(running, timeout_s=30)
    assert (served["status"], over["status"], over["attempts"]) == ("finished", "finished", 1)


def test_one_dead_worker_s_odd_keys_keep_no_other_s_jobs_from_coming_back(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_QUEUE__LEASE_S="1.5")
    stack.intake()
    odd, dead = stack.worker("int4"), stack.worker("int8")
    with Client(stack.url) as client:
        running = client.submit(BODY | {"max_tokens": 50_000}, min_tier="int8")["id"]
        wait_until(lambda: client.result(running)["status"] == "running", "it runs")
        first = client.result(running)["worker"]
        workers = cast("list[bytes]", store.zrange("bl:workers", 0, -1))
        name = next(one.decode() for one in workers if b".int4." in one)
        odd.kill()
        dead.kill()
        for key in (
            f"bl:inflight:{name}",
            f"bl:unbegun:{name}",
            f"bl:cancel:{name}",
            f"rq:worker:{name}",
            "rq:wip:smollm2:int8:normal",
        ):
            store.delete(key)
            store.set(key, "x")
        stack.worker("fp8")

        wait_until(lambda: client.result(running)["worker"] not in (first, None), "it runs elsewhere")
    wait_until(lambda: store.zscore("bl:workers", name) is None, "the other one is forgotten")
