"""Models by the names that people have, by aliases, and tiers by the name of a model: everywhere a name goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.cli.private_stack import private_stack
from tests.conftest import Stack, wait_until
from tests.warm_start import BITLADDER

HUB, LLAMA = "HuggingFaceTB/SmolLM2-360M-Instruct", "llama3.1:8b"
CONFIG = f"""
[models."{HUB}"]
aliases = ["gpt-4o-mini", "team/smol"]
[[models."{HUB}".tiers]]
name = "int4"
[[models."{HUB}".tiers]]
name = "int8"
[models."{LLAMA}"]
[[models."{LLAMA}".tiers]]
name = "int4"
"""
PAGES = """
[intake]
cors_origins = ["https://app.example.org"]
[auth.keys.me]
tenant = "me"
hash = "0000000000000000000000000000000000000000000000000000000000000000"
"""
CHAT: Any = [{"role": "user", "content": "a b c"}]


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    file = tmp_path_factory.mktemp("named") / "bitladder.toml"
    file.write_text(CONFIG, encoding="utf-8")
    stack = Stack(redis_url, BITLADDER_CONFIG=str(file))
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    stack.worker("int4")
    stack.start("worker", "--model", LLAMA, "--tier", "int4")
    wait_until(lambda: live(stack) == [1, 0, 1], "a worker of each model is live")
    yield stack
    stack.stop()


def live(stack: Stack) -> list[int]:
    models = stack.http.get("/v1/queues").json()["data"]
    return [tier["live_workers"] for model in models for tier in model["tiers"]]


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "model"),
    [
        (HUB, HUB),
        (LLAMA, LLAMA),
        ("gpt-4o-mini", HUB),
        ("team/smol", HUB),
        (f"{HUB}:int4", HUB),
        (f"{LLAMA}@int4", LLAMA),
        ("gpt-4o-mini:int4", HUB),
    ],
)
def test_openai_s_client_is_answered_by_the_model_that_it_names(client: openai.OpenAI, name: str, model: str) -> None:
    answer = client.chat.completions.with_raw_response.create(model=name, messages=CHAT)
    stream = client.chat.completions.create(model=name, messages=CHAT, stream=True)

    assert answer.headers["x-tier"] == "int4"
    assert answer.parse().model == model
    assert {chunk.model for chunk in stream} == {model}


def test_clients_may_choose_among_models_aliases_and_tiers(client: openai.OpenAI, stack: Stack) -> None:
    listed = [model.id for model in client.models.list()]

    assert listed[:2] == [HUB, LLAMA]
    assert listed[2:] == [f"{HUB}:int4", f"{HUB}:int8", "gpt-4o-mini", "team/smol", f"{LLAMA}:int4"]
    assert [client.models.retrieve(name).id for name in listed] == listed
    assert stack.http.get(f"/v1/models/{HUB}:int8").json()["parent"] == HUB  # a slash that is not quoted
    assert stack.http.get("/v1/models/team%2Fsmol@int8").json() | {"created": 0} == {
        "id": "team/smol@int8",
        "object": "model",
        "created": 0,
        "owned_by": "bitladder",
        "root": HUB,
        "parent": HUB,
        "max_model_len": 2048,
        "tiers": ["int8"],
        "published": {},
        "dominated": {},
    }
    assert stack.http.get(f"/v1/models/{HUB}/x").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", [f"{HUB}:int8", f"{HUB}@int8", "gpt-4o-mini:int8"])
def test_a_tier_in_the_model_s_name_means_what_the_headers_do(stack: Stack, name: str, redis_url: str) -> None:
    def submitted(model: str, **headers: str) -> dict[str, Any]:
        sent = {"model": model, "prompt": "a", "x": [1.0, {"y": "z"}]}
        job: dict[str, Any] = stack.http.post("/v1/jobs", json=sent, headers=headers).json()
        return job

    by_name = submitted(name)
    by_header = submitted(HUB, **{"X-Min-Tier": "int8", "X-Max-Tier": "int8"})
    refused = submitted(name, **{"X-Max-Tier": "int4"})
    with redis.Redis.from_url(redis_url) as store:
        record = json.loads(store.hget(f"rq:job:{by_name['id']}", "data"))

    assert by_name["queue"] == by_header["queue"] == f"{HUB}:int8:normal"
    assert record[3]["body"] == {"model": HUB, "prompt": "a", "x": [1.0, {"y": "z"}]}  # as the engine knows it
    assert (refused["error"]["param"], refused["error"]["code"]) == ("model", "invalid_request")


def test_one_idempotency_key_for_two_tiers_is_a_conflict(stack: Stack) -> None:
    answers = [
        stack.http.post("/v1/jobs", json={"model": name, "prompt": "a"}, headers={"Idempotency-Key": "two tiers"})
        for name in (f"{HUB}:int4", f"{HUB}:int8", f"{HUB}:int4")
    ]

    assert [answer.status_code for answer in answers] == [202, 422, 202]
    assert answers[0].json()["id"] == answers[2].json()["id"]


def test_rq_s_producers_metrics_and_the_commands_use_the_names_as_they_are(stack: Stack, redis_url: str) -> None:
    queue = Queue(f"{LLAMA}:int4:normal", connection=redis.Redis.from_url(redis_url), serializer=JSONSerializer)

    jobs = [queue.enqueue("workers.generate", body={"prompt": text}) for text in ("a b", "echo:fault")]
    wait_until(lambda: jobs[0].is_finished, "RQ's job is finished")
    wait_until(lambda: jobs[1].is_failed, "the other one is a dead letter")
    letters = [
        len(stack.http.get("/v1/dead-letters", params={"queue": start}).json()["data"])
        for start in (LLAMA, f"{LLAMA}:int4", "llama3.1", HUB)
    ]
    released = stack.http.post("/v1/dead-letters/release", json={"queue": LLAMA}).json()["released"]
    shown = BITLADDER.run("bitladder.cli.main", "queues", "--json", env=stack.environment)

    assert letters == [1, 1, 0, 0]
    assert len(released) == 1
    assert f'bitladder_queue_depth{{queue="{HUB}:int8:normal"}}' in stack.http.get("/metrics").text
    assert redis.Redis.from_url(redis_url).hkeys(f"bl:served:{LLAMA}") == [f"{LLAMA}:int4:normal".encode()]
    assert [model["model"] for model in json.loads(shown.stdout)["data"]] == [HUB, LLAMA]


def test_the_demo_s_own_stack_has_files_for_these_names_and_needs_no_key(tmp_path: Path) -> None:
    file = tmp_path / "bitladder.toml"
    file.write_text(CONFIG + PAGES, encoding="utf-8")

    with private_stack(str(file), {"worker.engine": "echo"}) as stack:
        stack.wait_until_live(60, lambda _: None)
        logs = {path.name for path in stack.folder.glob("*.log")}

    assert {"worker_llama3.1:8b_int4.log", "worker_HuggingFaceTB%2FSmolLM2-360M-Instruct_int8.log"} <= logs
