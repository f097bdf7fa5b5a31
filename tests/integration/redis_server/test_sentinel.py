"""A primary is killed while jobs run: the Sentinels put its replica in its place, and the stack goes on by itself."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from bitladder.errors import QueueUnreachableError
from bitladder.producer import Producer
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect, connect_sync
from bitladder.queue.server.failover import Failover, FailoverError
from tests.bitladder.queue.test_job_queue import job
from tests.chaos.proxy import Proxy
from tests.chaos.sentinels import Watched
from tests.chaos.valkey import Valkey
from tests.conftest import Stack, make_settings, wait_until
from tests.warm_start import BITLADDER

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 20}
# Replication is asynchronous: what was accepted so shortly before the primary's end may not have reached the replica.
LAG_S = 1.0


class Submitter:
    """Submits one job after the other, on a thread of its own, and notes what it is told."""

    def __init__(self, stack: Stack) -> None:
        self.answers: list[tuple[float, int, str]] = []  # when, status, job id
        self._stack, self._stop = stack, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Submitter:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()

    def accepted(self, since_s: float = 0) -> list[str]:
        return [job_id for at, status, job_id in list(self.answers) if status == 202 and at >= since_s]

    def _run(self) -> None:
        with httpx2.Client(base_url=self._stack.url, timeout=10) as http:
            while not self._stop.wait(0.02):
                answer = http.post("/v1/jobs", json=BODY)
                job_id = str(answer.json().get("id", ""))
                self.answers.append((time.monotonic(), answer.status_code, job_id))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with Watched(tmp_path) as watched:
        yield watched


@pytest.fixture
def stack(watched: Watched) -> Iterator[Stack]:
    stack = stack_on(watched, BITLADDER_QUEUE__LEASE_S="2")
    yield stack
    stack.stop()


def stack_on(watched: Watched, **environment: str) -> Stack:
    """Start an intake and two workers whose Redis is what the Sentinels name."""
    sentinels = json.dumps(watched.addresses)
    stack = Stack("redis://127.0.0.1:1/0", BITLADDER_REDIS__SENTINELS=sentinels, **environment)  # nobody is there
    stack.intake()
    for tier in ("int4", "int8"):
        stack.worker(tier)
    return stack


def status_of(stack: Stack, job_id: str) -> str:
    answer = stack.http.get(f"/v1/jobs/{job_id}")
    return str(answer.json()["status"]) if answer.status_code == 200 else str(answer.status_code)


def test_a_killed_primary_is_replaced_and_the_stack_goes_on_by_itself(watched: Watched, stack: Stack) -> None:
    before = watched.primary()
    with Submitter(stack) as submitter:
        wait_until(lambda: len(submitter.accepted()) > 30, "jobs come in")

        killed_s = time.monotonic()
        watched.kill(before)
        wait_until(lambda: bool(submitter.accepted(killed_s + 0.5)), "jobs are accepted again")
        wait_until(lambda: len(submitter.accepted(killed_s)) > 30, "more of them")

    new = redis.Redis(port=watched.primary_after(before))
    early = [at for at, status, _ in submitter.answers if status == 202 and at < killed_s + LAG_S]
    late = submitter.accepted(killed_s + LAG_S)
    wait_until(lambda: {status_of(stack, one) for one in late} == {"finished"}, "all that came later have finished")
    awaited = stack.http.post("/v1/completions", json=BODY)
    statuses = {one: status_of(stack, one) for one in submitter.accepted()}
    lost = [at for at, status, one in submitter.answers if status == 202 and statuses[one] == "404"]
    assert awaited.status_code == 200
    assert {status for _, status, _ in submitter.answers} == {202, 503}
    assert set(statuses.values()) <= {"finished", "404"}
    assert all(at > killed_s - LAG_S for at in lost), f"{len(lost)} of {len(early)} lost"
    wait_until(lambda: left_in(new) == Counter(), "nothing waits or runs, finished or not")
    new.close()


def test_a_planned_failover_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    """With two replicas and settings as they ship; the command is run while jobs come in."""
    with Watched(tmp_path, replicas=2, down_after_ms=30_000) as watched:
        before = watched.primary()
        stack = stack_on(watched)
        with Submitter(stack) as submitter:
            wait_until(lambda: len(submitter.accepted()) > 30, "jobs come in")
            done = BITLADDER.run("bitladder.cli.main", "failover", env=stack.environment, timeout=120)
            ended_s = time.monotonic()
            wait_until(lambda: len(submitter.accepted(ended_s)) > 30, "jobs are accepted again")
        after = watched.primary_after(before)
        accepted = submitter.accepted()
        wait_until(lambda: {status_of(stack, one) for one in accepted} == {"finished"}, "every job has finished", 60)
        stack.stop()

    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{after}" in done.stdout
    assert "every replica has all that was written" in done.stderr


def test_a_failover_without_a_replica_that_could_take_over_changes_nothing(watched: Watched) -> None:
    before = watched.primary()
    watched.kill(watched.ports[1])
    settings = make_settings("redis://127.0.0.1:1/0", redis__sentinels=watched.addresses)

    with pytest.raises(FailoverError, match="no connected replica"):
        Failover(settings.redis, 5, lambda _: None).run()

    assert watched.primary() == before
    with Producer(settings) as producer:
        assert producer.submit(BODY)


def left_in(store: redis.Redis) -> Counter[bytes]:
    """Count what is queued, in flight or leased by whom nobody knows."""
    left: Counter[bytes] = Counter()
    for key in store.scan_iter("*"):
        if key.startswith((b"rq:queue:", b"rq:wip:", b"bl:inflight:")):
            left[key] += 1
    return left


def test_a_producer_finds_the_new_primary(watched: Watched) -> None:
    settings = make_settings("redis://127.0.0.1:1/0", redis__sentinels=watched.addresses)
    with Producer(settings) as producer:
        first = producer.submit(BODY)
        watched.kill(watched.primary())
        accepted: list[str] = []

        def is_accepted() -> bool:
            try:
                accepted.append(producer.submit(BODY))
            except QueueUnreachableError:
                time.sleep(0.1)
            return bool(accepted)

        wait_until(is_accepted, "a job is accepted again")
        store: Any = connect_sync(settings.redis)
        waiting = store.lrange("rq:queue:smollm2:int4:normal", 0, -1)
        store.close()

    assert waiting[-1] == accepted[0].encode()
    assert {first.encode(), accepted[0].encode()} >= set(waiting)


async def test_a_connection_to_a_primary_that_became_a_replica_is_given_up(tmp_path: Path) -> None:
    """As behind a name that a managed service points elsewhere: the old server stays, and refuses to write."""
    with Valkey(tmp_path / "old", "everysec") as old, Valkey(tmp_path / "new", "everysec") as new:
        port_of = {its: int(its.url.rpartition(":")[2].removesuffix("/0")) for its in (old, new)}
        with Proxy(port_of[old]) as proxy:
            settings = make_settings(f"redis://127.0.0.1:{proxy.port}/0")
            queue, late, later = JobQueue(connect(settings.redis), settings), job(), job()
            await queue.submit([job()])
            old.store.replicaof("127.0.0.1", port_of[new])

            (refused,) = await queue.submit([late])
            assert type(refused) is QueueUnreachableError  # it is known that nothing was accepted
            assert "replica" in str(refused)
            proxy.target_port = port_of[new]
            again = await queue.submit([late])
            with Producer(settings) as producer:
                mine = producer.submit(BODY)
                new.store.replicaof("127.0.0.1", port_of[old])
                old.store.replicaof("NO", "ONE")
                proxy.target_port = port_of[old]
                other = producer.submit(BODY)
            after = await queue.submit([later])
            await queue.aclose()

            assert (again, after) == ([late.job_id], [later.job_id])
            assert new.store.exists(f"rq:job:{mine}")
            assert old.store.exists(f"rq:job:{other}")
