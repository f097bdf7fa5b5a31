"""Killed, stalled, cut off, misled by a clock: what becomes of the jobs. Real processes, real Valkey, a bad network."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from bitladder.client import Client
from bitladder.producer import Producer
from tests.chaos.proxy import Proxy
from tests.conftest import OwnValkey, Stack, free_port, make_settings, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
MANY = {f"BITLADDER_MODELS__SMOLLM2__TIERS__{tier}__SLOTS": "256" for tier in ("INT4", "INT8")}


def submit_many(stack: Stack, count: int, **fields: Any) -> list[str]:  # noqa: ANN401  (of the body)
    producer = Producer(make_settings(stack.environment["BITLADDER_REDIS__URL"]))
    bodies = (BODY | {"prompt": f"job {number}"} | fields for number in range(count))
    ids = producer.submit_many(bodies, lane=None, headers={"X-Max-Tier": "int4"})
    producer.close()
    return [str(job_id) for job_id in ids]


def running(store: redis.Redis) -> int:
    """Return how many jobs are claimed, and known to have begun."""
    claimed = sum(store.zcard(key) for key in store.keys("rq:wip:*"))
    return claimed - sum(store.scard(key) for key in store.keys("bl:unbegun:*"))


def wait_for(stack: Stack, ids: list[str], timeout_s: float = 60) -> list[dict[str, Any]]:
    with Client(stack.url) as client:
        return [client.wait(job_id, timeout_s=timeout_s) for job_id in ids]


def _waits(store: redis.Redis) -> bool:
    info: Any = store.info("clients")
    return info["blocked_clients"] == 1 and store.llen("bl:wake:smollm2:int4") == 0


def metric(port: int, name: str) -> float:
    lines = httpx2.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_256_jobs_of_a_killed_worker_run_again_within_20_seconds_and_are_answered_once(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(**MANY, BITLADDER_ECHO__TTFT_MS="9000")  # the lease is the default, 15 s
    stack.intake()
    victim = stack.worker("int4")
    ids = submit_many(stack, 256)
    wait_until(lambda: running(store) == 256, "all of them run")
    stack.worker("int4")  # as in a rolling deployment: the new one is up before the old one dies

    killed = time.time()
    victim.kill()
    jobs = wait_for(stack, ids)

    again: list[Any] = [store.hget(f"rq:job:{job_id}", "started_at") for job_id in ids]
    assert {(job["status"], job["attempts"]) for job in jobs} == {("finished", 2)}
    assert max(datetime.fromisoformat(at.decode()).timestamp() for at in again) - killed < 20
    assert sum(store.zcard(key) for key in store.keys("rq:finished:*")) == 256
    assert store.keys("rq:wip:*") + store.keys("bl:inflight:*") == []


def test_a_worker_that_was_stalled_beyond_its_lease_is_not_listened_to(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    port = free_port()
    stack = make_stack(BITLADDER_QUEUE__LEASE_S="1.5", BITLADDER_ECHO__TTFT_MS="2000")
    stack.intake()
    stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
    stalled = stack.worker("int4")
    (job_id,) = submit_many(stack, 1)
    wait_until(lambda: running(store) == 1, "it runs")
    stalled.send_signal(signal.SIGSTOP)
    del stack.environment["BITLADDER_WORKER__METRICS_PORT"]
    stack.start("worker", "--tier", "int4")

    (done,) = wait_for(stack, [job_id])
    stalled.send_signal(signal.SIGCONT)
    wait_until(lambda: metric(port, "bitladder_jobs_fenced_total") == 1, "its late outcome is refused")
    (still,) = wait_for(stack, [job_id])

    assert (done["status"], done["attempts"]) == ("finished", 2)
    assert still == done
    wait_until(lambda: stack.live("int4") == 2, "it serves again")


def test_clocks_that_are_hours_apart_move_no_lease_and_no_deadline(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path
) -> None:
    stack = make_stack(BITLADDER_QUEUE__LEASE_S="1", BITLADDER_ECHO__TTFT_MS="4000")
    stack.intake()
    path = stack.environment["PYTHONPATH"]
    for hours in (-1, 1):
        folder = tmp_path / f"clock{hours}"
        folder.mkdir()
        shifted = f"import time\nreal = time.time\ntime.time = lambda: real() + {hours} * 3600\n"
        (folder / "sitecustomize.py").write_text(shifted, encoding="utf-8")
        stack.environment["PYTHONPATH"] = f"{folder}:{path}"
        stack.worker("int4")

    with Client(stack.url) as client:
        jobs = [client.submit(BODY, deadline_ms=20_000)["id"] for _ in range(8)]
        done = [client.wait(job_id, timeout_s=30) for job_id in jobs]
        late = client.wait(client.submit(BODY, deadline_ms=1000)["id"], timeout_s=30)

    # Each ran for four leases, and once.
    assert {(job["status"], job["attempts"]) for job in done} == {("finished", 1)}
    assert late["status"] == "expired"


@pytest.mark.parametrize(
    ("lease_s", "unreachable_s"), [(10, 1), (1.5, 4)], ids=["for a moment", "for longer than a lease"]
)
def test_redis_is_killed_under_64_running_jobs_and_comes_back(
    make_stack: Callable[..., Stack], own_valkey: OwnValkey, lease_s: float, unreachable_s: float
) -> None:
    stack = make_stack(
        **MANY,
        BITLADDER_REDIS__URL=own_valkey.url,
        BITLADDER_QUEUE__LEASE_S=str(lease_s),
        BITLADDER_ECHO__TTFT_MS="2000",
    )
    stack.intake()
    worker = stack.worker("int4")
    ids = submit_many(stack, 64)
    store = redis.Redis.from_url(own_valkey.url)
    wait_until(lambda: running(store) == 64, "all of them run")

    own_valkey.kill()
    refused = stack.http.post("/v1/jobs", json=BODY)
    unready = stack.http.get("/readyz")
    time.sleep(unreachable_s)  # how long it is unreachable is what this is about
    own_valkey.start()
    jobs = wait_for(stack, ids)
    store.close()

    assert {(job["status"], job["attempts"]) for job in jobs} == {("finished", 1)}
    assert (refused.status_code, refused.headers["retry-after"], unready.status_code) == (503, "1", 503)
    assert worker.poll() is None


def test_an_emptied_redis_costs_what_was_in_it_and_nothing_more(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_QUEUE__LEASE_S="1.5", BITLADDER_ECHO__TTFT_MS="800")
    stack.intake()
    worker = stack.worker("int4")
    (gone,) = submit_many(stack, 1)
    wait_until(lambda: running(store) == 1, "it runs")

    store.flushall()
    store.script_flush()
    wait_until(lambda: stack.live("int4") == 1, "the worker is back in the list")
    jobs = wait_for(stack, submit_many(stack, 5))

    assert {job["status"] for job in jobs} == {"finished"}
    assert stack.http.get(f"/v1/jobs/{gone}").status_code == 404
    assert worker.poll() is None
    wait_until(lambda: store.keys("bl:inflight:*") == [], "nothing of the lost job is left")


def test_a_redis_that_evicts_is_refused_at_the_start(make_stack: Callable[..., Stack], own_valkey: OwnValkey) -> None:
    client = redis.Redis.from_url(own_valkey.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.close()
    stack = make_stack(BITLADDER_REDIS__URL=own_valkey.url)

    assert stack.start("worker", "--tier", "int4").wait(20) == 2
    assert stack.start("serve").wait(20) != 0


def test_a_job_that_redis_handed_to_a_deaf_connection_runs_elsewhere(
    make_stack: Callable[..., Stack], store: redis.Redis, redis_url: str
) -> None:
    with Proxy(int(redis_url.rpartition(":")[2].split("/")[0])) as proxy:
        stack = make_stack(BITLADDER_QUEUE__LEASE_S="2", BITLADDER_WORKER__BLOCK_S="5")
        stack.intake()
        stack.environment["BITLADDER_REDIS__URL"] = redis_url.replace(
            redis_url.split(":")[2].split("/")[0], str(proxy.port)
        )
        stack.worker("int4")
        stack.environment["BITLADDER_REDIS__URL"] = redis_url
        with Producer(make_settings(redis_url)) as producer:
            producer.submit(BODY, headers={"X-Deadline-Ms": "1"})  # so that it is connected
            wait_until(lambda: _waits(store), "the worker waits for a push")
            proxy.black_hole()
            job_id = producer.submit(BODY)
        wait_until(lambda: bool(store.keys("bl:unbegun:*")), "Redis has handed it over")
        stack.start("worker", "--tier", "int4")
        (done,) = wait_for(stack, [job_id])
        proxy.heal()

    assert (done["status"], done["attempts"]) == ("finished", 1)  # where nobody heard of it, nothing ran


def test_a_worker_cut_off_from_redis_is_replaced_and_its_late_word_refused(
    make_stack: Callable[..., Stack], store: redis.Redis, redis_url: str
) -> None:
    metrics = free_port()
    with Proxy(int(redis_url.rpartition(":")[2].split("/")[0])) as proxy:
        stack = make_stack(BITLADDER_QUEUE__LEASE_S="1.5", BITLADDER_ECHO__TTFT_MS="1500")
        stack.intake()
        stack.environment |= {
            "BITLADDER_REDIS__URL": f"redis://127.0.0.1:{proxy.port}/0",
            "BITLADDER_WORKER__METRICS_PORT": str(metrics),
        }
        stack.worker("int4")
        del stack.environment["BITLADDER_WORKER__METRICS_PORT"]
        stack.environment["BITLADDER_REDIS__URL"] = redis_url
        ids = submit_many(stack, 4)
        wait_until(lambda: running(store) == 4, "they run")

        proxy.hold()
        stack.start("worker", "--tier", "int4")
        jobs = wait_for(stack, ids)
        proxy.heal()
        wait_until(lambda: metric(metrics, "bitladder_jobs_fenced_total") == 4, "what it hands in late is refused")
        after = wait_for(stack, ids)

    assert Counter((job["status"], job["attempts"]) for job in jobs) == {("finished", 2): 4}
    assert after == jobs


def test_a_submission_whose_answer_was_lost_can_be_repeated_with_its_key(
    make_stack: Callable[..., Stack], store: redis.Redis, redis_url: str
) -> None:
    with Proxy(int(redis_url.rpartition(":")[2].split("/")[0])) as proxy:
        stack = make_stack(BITLADDER_REDIS__URL=f"redis://127.0.0.1:{proxy.port}/0")
        stack.intake()
        headers = {"Idempotency-Key": "once"}
        proxy.delay(0.6)  # there and back is more than [redis].timeout_s: Redis has it, and the intake does not know

        lost = stack.http.post("/v1/jobs", json=BODY, headers=headers)
        proxy.heal()
        first = stack.http.post("/v1/jobs", json=BODY, headers=headers)
        second = stack.http.post("/v1/jobs", json=BODY, headers=headers)

    assert lost.status_code == 503
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert len(store.keys("rq:job:*")) == 1


def test_a_second_signal_hands_back_at_once_what_streams(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack(**MANY, BITLADDER_ECHO__TOKENS_PER_S="20")
    stack.intake()
    leaving = stack.worker("int4")
    ids = submit_many(stack, 64, stream=True, max_tokens=60)
    wait_until(lambda: len(store.keys("bl:stream:*")) == 64, "all of them stream")

    leaving.terminate()
    wait_until(lambda: stack.live("int4") == 0, "it drains")
    leaving.terminate()

    assert leaving.wait(10) == 0
    assert store.llen("rq:queue:smollm2:int4:normal:max-int4") == 64
    stack.worker("int4")
    assert {(job["status"], job["attempts"]) for job in wait_for(stack, ids)} == {("finished", 1)}


def test_a_rolling_restart_under_load_changes_no_answer(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_WORKER__DRAIN_GRACE_S="0.3", BITLADDER_ECHO__TOKENS_PER_S="40")
    stack.intake()
    old = [stack.worker("int4"), stack.worker("int8")]
    ids = submit_many(stack, 120, max_tokens=20)

    for worker, tier in zip(old, ("int4", "int8"), strict=True):
        stack.worker(tier)
        worker.terminate()
        assert worker.wait(20) == 0
    jobs = wait_for(stack, ids)

    assert {(job["status"], job["attempts"]) for job in jobs} == {("finished", 1)}
    for number, job in enumerate(jobs):
        assert job["result"]["choices"][0]["text"] == " ".join(["job", str(number)] * 10)
