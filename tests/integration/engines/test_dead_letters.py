"""A prompt that kills the engine, and what Redis may have been fed: it becomes a dead letter, and all else goes on."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.client import Client
from bitladder.contract import Request
from bitladder.producer import Producer
from bitladder.rq_call import encode_call
from tests.conftest import Stack, make_settings, wait_until
from tests.warm_start import BITLADDER

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
QUEUE = "smollm2:int4:normal"


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack(
        BITLADDER_ECHO__TTFT_MS="100",
        BITLADDER_MODELS__SMOLLM2__TIERS__INT4__SLOTS="64",
        BITLADDER_MODELS__SMOLLM2__TIERS__INT4__HIGH="1000",
    )
    stack.intake()
    return stack


def bitladder(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return BITLADDER.run("bitladder.cli.main", *arguments, env=stack.environment)


def test_one_prompt_that_kills_the_engine_takes_none_of_its_64_with_it(
    stack: Stack, redis_url: str, store: redis.Redis
) -> None:
    prompts = [f"job {number}" for number in range(64)]
    prompts[20] = "echo:crash"
    producer = Producer(make_settings(redis_url))
    ids = [str(job_id) for job_id in producer.submit_many((BODY | {"prompt": text} for text in prompts), lane=None)]
    producer.close()
    stack.worker("int4")

    with Client(stack.url) as client:
        jobs = [client.wait(job_id, timeout_s=60) for job_id in ids]
    dead = stack.http.get("/v1/dead-letters").json()
    shown = stack.http.get(f"/v1/dead-letters/{ids[20]}").json()

    assert Counter(job["status"] for job in jobs) == {"finished": 63, "failed": 1}
    assert {job["attempts"] for job in jobs} == {1}
    assert jobs[20]["error"]["code"] == "poison"
    assert dead["by_code"] == {"poison": 1}
    assert [one["id"] for one in dead["data"]] == [ids[20]]
    assert [loss["code"] for loss in shown["history"]] == ["engine_lost", "engine_lost"]
    assert store.keys("bl:inflight:*") + store.keys("rq:wip:*") == []


def test_operators_list_release_and_drop_dead_lettered_jobs(stack: Stack) -> None:
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    with Client(stack.url) as client:
        first, second = (client.submit(BODY | {"prompt": "echo:fault"})["id"] for _ in range(2))
        for job_id in (first, second):
            assert client.wait(job_id, timeout_s=20)["status"] == "failed"

        listed = bitladder(stack, "dead-letters", "list", "--json")
        few = bitladder(stack, "dead-letters", "list", "--limit", "1")
        dry = bitladder(stack, "dead-letters", "release", "--code", "engine_fault", "--dry-run")
        vague = bitladder(stack, "dead-letters", "drop")
        released = bitladder(stack, "dead-letters", "release", first)
        assert client.wait(first, timeout_s=20)["attempts"] == 3  # all of them, again
        wait_until(lambda: stack.http.get("/v1/dead-letters").json()["total"] == 2, "it is back among the dead letters")
        unasked = bitladder(stack, "dead-letters", "drop", "--all")
        dropped = bitladder(stack, "dead-letters", "drop", "--all", "--yes")
        unknown = bitladder(stack, "dead-letters", "show", first)

    assert {job["id"] for job in json.loads(listed.stdout)} == {first, second}
    assert few.stderr == "the latest 1 of them; --limit 0 lists all\n2 jobs, 2 engine_fault\n"
    assert dry.stdout.strip() == "would be released: 2 jobs, 2 engine_fault"
    assert vague.returncode == 2
    assert "name the jobs by ids" in vague.stderr
    assert released.stdout.strip() == "1 of 1 released"
    assert (unasked.returncode, unasked.stdout) == (2, "")
    assert "drop 2 jobs, 2 engine_fault? There is no terminal to ask on: pass --yes" in unasked.stderr
    assert dropped.stdout.strip() == "2 of 2 dropped"
    assert unknown.returncode == 3
    assert "among the dead letters" in unknown.stderr


@pytest.mark.parametrize(
    ("body", "param"),
    [(b"", None), (b"{}", "all"), (b'{"all": true, "code": "x"}', "all"), (b'{"ids": 3}', None), (b'{"odd": 1}', None)],
)
def test_an_order_about_the_dead_letters_says_exactly_which_jobs(stack: Stack, body: bytes, param: str | None) -> None:
    answer = stack.http.post("/v1/dead-letters/drop", content=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


class Planted:
    """What a pickle does when somebody loads it: make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def plant(store: redis.Redis, job_id: str, **fields: bytes | str) -> str:
    usual: dict[str, bytes | str] = {"status": "queued", "origin": QUEUE}
    usual["data"] = encode_call(Request(body=_raw()))
    for key, value in (usual | fields).items():
        if value:
            store.hset(f"rq:job:{job_id}", key, value)
    store.expire(f"rq:job:{job_id}", 600)
    store.rpush(f"rq:queue:{QUEUE}", job_id)
    return job_id


def change(store: redis.Redis, job_id: str, old: bytes, new: bytes) -> None:
    data: Any = store.hget(f"rq:job:{job_id}", "data")
    assert old in data
    store.hset(f"rq:job:{job_id}", "data", data.replace(old, new))


def _raw() -> msgspec.Raw:
    return msgspec.Raw(json.dumps(BODY).encode())


def test_whatever_is_planted_in_redis_ends_in_dead_letters_and_the_worker_goes_on(
    stack: Stack, store: redis.Redis, tmp_path: Path
) -> None:
    pickled = pickle.dumps(Planted(tmp_path / "owned"))
    call = encode_call(Request(body=_raw()))
    plant(store, "pickled-data", data=pickled)
    plant(store, "zipped-pickle", data=zlib.compress(pickled))
    plant(store, "foreign-name", data=b'["os.mkdir",null,["%s"],{}]' % str(tmp_path / "owned").encode())
    plant(store, "future-version", data=call.replace(b"workers.generate", b"workers.generate.v2"))
    plant(store, "with-arguments", data=b'["workers.generate",null,[1],{"body":{}}]')
    plant(store, "zip-bomb", data=zlib.compress(b"[" + b" " * 64_000_000))
    plant(store, "no-data", data="")
    plant(store, "deep", data=b'["workers.generate",null,[],{"body":' + b"[" * 200_000 + b"]" * 200_000 + b"}]")
    plant(store, "not-json", data=b"\xff\xfe\x00")
    plant(store, "odd-status", status=pickled)
    ids: Any = store.lrange(f"rq:queue:{QUEUE}", 0, -1)
    planted = {job_id.decode() for job_id in ids}
    odd = plant(store, "odd-fields", wait="inf nan -", fence="1e400", uncharged="x", cancel="", crash_count="\x00")
    store.hset(f"rq:job:{odd}", mapping={"meta": pickled, "created_at": "nonsense", "timeout": pickled})
    worker = stack.worker("int4")

    with Client(stack.url) as client:
        fine = client.wait(client.submit(BODY)["id"], timeout_s=30)
        wait_until(
            lambda: client.result(odd)["status"] == "finished", "a record with odd fields is served all the same"
        )
        wait_until(
            lambda: stack.http.get("/v1/dead-letters").json()["total"] == len(planted), "all else is a dead letter"
        )
        shown = {job["id"]: job["code"] for job in stack.http.get("/v1/dead-letters").json()["data"]}

    assert fine["status"] == "finished"
    assert shown == dict.fromkeys(planted, "corrupt_job")
    assert not (tmp_path / "owned").exists()
    assert worker.poll() is None


def test_a_field_that_only_a_later_version_knows_is_no_obstacle(stack: Stack, store: redis.Redis) -> None:
    call = encode_call(Request(body=_raw()))
    job_id = plant(store, "later", data=call[:-2] + b',"of_a_later_version":[1,2]}]', of_later="x")
    stack.worker("int4")

    with Client(stack.url) as client:
        assert client.wait(job_id, timeout_s=20)["status"] == "finished"


def test_with_keys_only_signed_jobs_run_and_only_signed_outcomes_are_read(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_QUEUE__SECRETS='["a key of at least 16 characters"]')
    stack.intake()
    with Client(stack.url) as client:
        changed = client.submit(BODY)["id"]
        change(store, changed, b"aa bb", b"xx yy")
        raised = client.submit(BODY, max_tier="int4")["id"]
        change(store, raised, b'"ceiling":"int4"', b'"ceiling":"fp8"')
        forged = plant(store, "forged")
        theirs = Queue(QUEUE, connection=store, serializer=JSONSerializer).enqueue("workers.generate", body=BODY)
        stack.worker("int4")
        fine = client.wait(client.submit(BODY)["id"], timeout_s=20)
        streamed = "".join(client.stream(BODY))
        ends = {job_id: client.wait(job_id, timeout_s=20) for job_id in (changed, raised, forged, theirs.id)}
        store.hset(f"rq:job:{fine['id']}", "outcome", '{"state":"finished","status":200,"body":{"choices":[]}}')
        lied = client.result(fine["id"])

    assert fine["status"] == "finished"
    assert streamed.startswith("aa bb")
    assert {job["error"]["code"] for job in ends.values()} == {"bad_signature"}
    assert stack.http.get("/v1/dead-letters").json()["by_code"] == {"bad_signature": 4}
    assert (lied["status"], lied["error"]["code"]) == ("failed", "corrupt_outcome")
