"""A producer beside Redis may choose any id: its job runs, and every endpoint finds it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import msgspec
import redis

from bitladder.client import Client
from bitladder.contract import Request
from bitladder.ids import in_url, read_id, readable
from tests.bitladder.test_ids import ODD, plant
from tests.conftest import ROOT, Stack, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


def bitladder(stack: Stack, *arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=60, check=False
    )


def call(**fields: bool) -> bytes:
    request = Request(body=msgspec.Raw(json.dumps(BODY | fields).encode()), stream=fields.get("stream", False))
    return msgspec.json.encode(("workers.generate", None, (), request))


def test_every_endpoint_finds_a_job_whatever_its_id(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack()
    stack.intake()
    waiting = [plant(store, raw[:-1] + b"-") for raw in ODD]
    with Client(stack.url) as client:
        assert [client.result(job_id)["status"] for job_id in waiting] == ["queued"] * len(ODD)
        assert {client.cancel(job_id)["status"] for job_id in waiting} == {"cancelled"}

        streams = [plant(store, raw, data=call(stream=True)) for raw in ODD]
        broken = [plant(store, raw[:500] + b"!", data=b"no call") for raw in ODD]
        stack.worker("int4")
        done = [client.wait(job_id, timeout_s=20) for job_id in streams]
        failed = [client.wait(job_id, timeout_s=20) for job_id in broken]
    events = [stack.http.get(f"/v1/jobs/{in_url(job_id)}/events") for job_id in streams]
    headers = [stack.http.get(f"/v1/jobs/{in_url(job_id)}").headers["x-job-id"] for job_id in streams]
    dead = stack.http.get("/v1/dead-letters").json()["data"]
    shown_dead_letters = [stack.http.get(f"/v1/dead-letters/{in_url(job_id)}").json()["code"] for job_id in broken]
    chosen = [readable(job_id) for job_id in broken[:5]]
    dropped = stack.http.post("/v1/dead-letters/drop", json={"ids": chosen}).json()["dropped"]

    assert [(job["id"], job["status"]) for job in done] == [(readable(job_id), "finished") for job_id in streams]
    assert all(answer.text.endswith("data: [DONE]\n\n") and "aa" in answer.text for answer in events)
    assert headers == [in_url(job_id) for job_id in streams]
    assert {job["error"]["code"] for job in failed} == {"corrupt_job"}
    assert {job["id"] for job in dead} == {readable(job_id) for job_id in broken}
    assert shown_dead_letters == ["corrupt_job"] * len(ODD)
    assert sorted(dropped) == sorted(chosen)


def test_the_command_line_takes_any_id(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack()
    stack.intake()
    stack.environment["BITLADDER_URL"] = stack.url
    raw = b"a/b \xff[red]"
    ended, waits = plant(store, raw, status="nonsense"), plant(store, raw + b"2")
    with Client(stack.url) as client:
        client.cancel(waits)
        stack.worker("int4")
        wait_until(lambda: client.result(ended)["status"] == "failed", "it is a dead letter")

    result, listed = bitladder(stack, "result", raw), bitladder(stack, "dead-letters", "list")
    shown_dead_letters = bitladder(stack, "dead-letters", "show", raw)
    dropped = bitladder(stack, "dead-letters", "drop", readable(ended))

    assert result.stderr.startswith("failed: the status in the job's record")
    assert "1 jobs, 1 corrupt_job" in listed.stderr
    assert json.loads(shown_dead_letters.stdout)["id"] == in_url(read_id(raw))
    assert dropped.stdout.strip() == "1 of 1 dropped"
