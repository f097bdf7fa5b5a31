"""Operators steer a running stack: pause, resume, drain, from an intake and from Redis itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from bitladder.cli.ops.operations import operations
from bitladder.cli.output import exit_code
from bitladder.client import Client
from bitladder.errors import BitladderError
from bitladder.settings.access import key_hash, new_key
from tests.conftest import Stack, wait_until
from tests.integration.operating.test_operator_commands import by_intake, by_redis

OPS = new_key()
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    key = f'{{hash = "{key_hash(OPS.encode())}", tenant = "ops", scopes = ["submit", "read", "ops"]}}'
    stack = make_stack(BITLADDER_AUTH__KEYS=f"{{ops = {key}}}", BITLADDER_ECHO__TOKENS_PER_S="20")
    stack.http.headers["Authorization"] = f"Bearer {OPS}"
    stack.intake()
    return stack


def order(stack: Stack, word: str, **body: object) -> dict[str, Any]:
    answer: dict[str, Any] = stack.http.post(f"/v1/ops/{word}", json=body).raise_for_status().json()
    return answer


def status(stack: Stack, job_id: str) -> str:
    return str(stack.http.get(f"/v1/jobs/{job_id}").json()["status"])


def submit(stack: Stack, **fields: object) -> str:
    return str(stack.http.post("/v1/jobs", json=BODY | fields).raise_for_status().json()["id"])


def test_a_pause_and_its_end_reach_a_worker_that_waits_within_a_second_and_are_shown_everywhere(
    stack: Stack, tmp_path: Path
) -> None:
    stack.worker("int4")
    assert (
        stack.http.get(f"/v1/jobs/{submit(stack)}?wait=20").json()["status"] == "finished"
    )  # then it waits in its pop

    paused = by_intake(stack, tmp_path, "pause", "--tier", "int4", "--reason", "odd answers", key=OPS)
    job = submit(stack)
    time.sleep(1.2)  # longer than the worker's pop: nothing may happen, so there is nothing to wait for
    tier = stack.http.get("/v1/queues").json()["data"][0]["tiers"][0]
    listed, ready = by_redis(stack, "queues"), stack.http.get("/readyz").json()
    metrics = stack.http.get("/metrics").text

    assert "tier:smollm2:int4, by ops since" in paused.stdout
    assert status(stack, job) == "queued"
    assert (tier["paused"]["by"], tier["paused"]["reason"], tier["live_workers"]) == ("ops", "odd answers", 1)
    assert tier["queues"][0]["paused"]["scope"] == "tier:smollm2:int4"
    assert "paused: tier:smollm2:int4, by ops" in listed.stderr
    assert (ready["status"], ready["paused"]) == ("ready", ["tier:smollm2:int4"])
    assert 'bitladder_paused{scope="tier:smollm2:int4"} 1.0' in metrics
    started = time.monotonic()
    resumed = by_redis(stack, "resume", "--tier", "int4", "--reason", "mended")
    assert stack.http.get(f"/v1/jobs/{job}?wait=20").json()["status"] == "finished"
    assert time.monotonic() - started < 5
    assert resumed.stdout == "resumed tier:smollm2:int4\n"
    log = json.loads(by_intake(stack, tmp_path, "audit", "--json", key=OPS).stdout)["data"]
    assert [(entry["what"], entry["reason"]) for entry in log] == [("resume", "mended"), ("pause", "odd answers")]
    assert log[1]["by"] == "ops"
    assert "@" in log[0]["by"]


def test_pausing_everything_is_what_rq_suspend_does_and_either_can_lift_the_other(
    stack: Stack, store: redis.Redis
) -> None:
    order(stack, "pause", everything=True, reason="maintenance", for_s=600)
    assert 590_000 < store.pttl("rq:suspended") <= 600_000
    assert stack.http.get("/v1/queues").json()["suspended"] is True
    store.delete("rq:suspended")  # as `rq resume`
    assert stack.http.get("/v1/ops/pauses").json()["data"] == []

    store.set("rq:suspended", 1)  # as `rq suspend`
    (shown,) = stack.http.get("/v1/ops/pauses").json()["data"]
    assert (shown["scope"], shown["by"], shown["since"]) == ("all", "rq suspend", None)
    lifted = by_redis(stack, "resume", "--everything")
    again = by_redis(stack, "resume", "--everything")

    assert (lifted.stdout, lifted.returncode) == ("resumed all\n", 0)
    assert (again.stdout, again.returncode) == ("all was not paused\n", 3)
    assert not store.exists("rq:suspended")


WRONG: tuple[tuple[str, dict[str, object]], ...] = (
    ("pause", {"tier": "int3"}),
    ("pause", {"lane": "fast"}),
    ("pause", {}),
    ("pause", {"tier": "int4", "lane": "batch"}),
    ("pause", {"model": "other"}),
    ("pause", {"tier": "int4", "for_s": -1}),
    ("pause", {"tier": "int4", "colour": "red"}),
    ("resume", {"scope": "nonsense"}),
    ("resume", {"tenant": "acme"}),
    ("drain", {"worker": "nobody"}),
    ("drain", {}),
    ("drain", {"tier": "int8"}),
    ("purge", {}),
    ("purge", {"filter": {"tier": "int4"}, "dry_run": False}),
    ("purge", {"filter": {"tier": "int3"}}),
    ("purge", {"filter": {"tier": "int4"}, "dry_run": False, "confirm": "1-2-0123456789abcdef"}),
    ("cancel", {"filter": {"state": ["finished"]}}),
    ("move", {"filter": {"tier": "int4"}, "to": "int8"}),
    ("move", {"filter": {"tier": "int4"}, "to": "int3"}),
    ("move", {"filter": {"tier": "int4"}}),
)


def test_an_order_says_the_same_from_both_sides_and_what_is_wrong_with_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    intake, straight = operations(stack.url, OPS, None), operations(None, None, None)
    for word, body in WRONG:
        answers = []
        for side in (intake, straight):
            try:
                answers.append(str(side.order(word, body)))
            except BitladderError as error:
                answers.append(f"{exit_code(error)} {error}")

        assert answers[0] == answers[1], (word, body)


def test_a_drained_worker_ends_its_stream_and_then_itself_and_a_kept_one_claims_again_when_resumed(
    stack: Stack,
) -> None:
    worker = stack.worker("int4")
    (name,) = order(stack, "drain", tier="int4", dry_run=True)["workers"]

    order(stack, "drain", worker=name, keep=True, reason="a look at its GPU")
    wait_until(lambda: stack.live("int4") == 0, "it no longer counts as live")
    job = submit(stack)
    assert (worker.poll(), status(stack, job)) == (None, "queued")
    assert order(stack, "drain", worker=name, resume=True)["workers"] == [name]
    assert stack.http.get(f"/v1/jobs/{job}?wait=20").json()["status"] == "finished"

    with Client(stack.url, api_key=OPS) as client:
        stream = client.stream(BODY | {"max_tokens": 20})  # a second's worth
        tokens = [next(stream)]
        drained = by_redis(stack, "drain", "--tier", "int4")
        tokens += stream
    assert drained.stdout == f"draining {name}\n"
    assert len(tokens) == 20
    assert worker.wait(20) == 0
    assert status(stack, submit(stack)) == "queued"


@pytest.mark.parametrize("lease", ["2", pytest.param("", marks=pytest.mark.long)], ids=["2 s", "lease that ships"])
def test_a_pause_beside_a_killed_worker_loses_nothing(
    make_stack: Callable[..., Stack], store: redis.Redis, lease: str
) -> None:
    stack = make_stack(BITLADDER_ECHO__TTFT_MS="1000", **({"BITLADDER_QUEUE__LEASE_S": lease} if lease else {}))
    stack.intake()
    victim = stack.worker("int4")
    ids = [submit(stack, prompt=f"job {number}") for number in range(6)]
    wait_until(lambda: sum(store.zcard(key) for key in store.keys("rq:wip:*")) == 6, "all of them run")
    order(stack, "pause", tier="int4")
    victim.kill()
    other = stack.worker("int4")  # it reaps, and claims nothing
    wait_until(lambda: store.llen("rq:queue:smollm2:int4:normal") == 6, "they wait again", 40)

    order(stack, "resume", tier="int4")

    ended = [stack.http.get(f"/v1/jobs/{job_id}?wait=20").json() for job_id in ids]
    assert {job["status"] for job in ended} == {"finished"}
    assert sum(store.zcard(key) for key in store.keys("rq:finished:*")) == 6
    assert other.poll() is None


def test_many_jobs_are_moved_and_cancelled_from_either_side_and_their_clients_are_told(
    stack: Stack, tmp_path: Path
) -> None:
    stack.worker("fp8")
    order(stack, "pause", lane="normal")
    jobs = [submit(stack, prompt=f"last {number}") for number in range(3)]

    asked = by_redis(stack, "cancel", "--tier", "int4")
    moved = by_redis(stack, "move", "--tier", "int4", "--to", "fp8", "--yes")
    explained = stack.http.get(f"/v1/jobs/{jobs[0]}/explain").json()
    cancelled = by_intake(stack, tmp_path, "cancel", "--tier", "fp8", "--yes", "--reason", "enough", key=OPS)

    assert "cancel 3 jobs? There is no terminal to ask on: pass --yes" in asked.stderr
    assert moved.stdout == "move: 3 moved\n"
    assert explained["moved"]["from"] == "smollm2:int4:normal"
    assert cancelled.stdout == "cancel: 3 cancelled\n"
    assert {status(stack, job_id) for job_id in jobs} == {"cancelled"}
