"""Every route of the engine, asked as its users ask it: awaited, streamed, and as a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
import redis

from bitladder.endpoints import Endpoint
from dispatcher.routes.inference_routes import example_of
from tests.conftest import Stack

CONVERSATION = [{"role": "user", "content": "one two three"}]
RESPONSE: dict[str, Any] = {"model": "smollm2", "input": "one two three"}
MESSAGE: dict[str, Any] = {"model": "smollm2", "messages": CONVERSATION, "max_tokens": 16}


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    stack = Stack(redis_url, BITLADDER_INTAKE__HEARTBEAT_S="0.1", BITLADDER_INTAKE__ADMISSION="false")
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def events_of(answer: httpx2.Response) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and data of a stream's events; every one has both."""
    parts = [part.split("\n") for part in answer.text.split("\n\n") if part and not part.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_every_route_of_the_engine_answers(stack: Stack, endpoint: Endpoint) -> None:
    answer = stack.http.request(endpoint.row.method, endpoint, json=example_of(endpoint))
    job = stack.http.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()

    assert answer.status_code == 200, answer.text
    assert endpoint.row.answer in answer.json()
    assert answer.headers["x-tier"] == "int4"
    usage = answer.json().get("usage")
    if usage:
        counted = job["usage"]
        assert counted["prompt_tokens"] == usage.get("prompt_tokens", usage.get("input_tokens"))
        assert bool(counted["completion_tokens"]) == endpoint.generates


def test_a_job_may_be_for_any_route(stack: Stack) -> None:
    accepted = stack.http.post("/v1/jobs?endpoint=/v1/embeddings", json={"model": "smollm2", "input": ["a b", "c"]})
    job = stack.http.get(accepted.json()["urls"]["wait"]).json()
    unnamed = stack.http.post("/v1/jobs", json={"model": "smollm2", "input": "a b"})

    assert [len(entry["embedding"]) for entry in job["result"]["data"]] == [384, 384]
    assert job["usage"] == {"prompt_tokens": 3, "completion_tokens": 0}
    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "endpoint")


def test_openais_library_reads_responses_and_embeddings(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="smollm2", input="one two three", service_tier="fast")
    stream = list(client.responses.create(model="smollm2", input="one two three", stream=True, service_tier="flex"))
    vectors = client.embeddings.create(model="smollm2", input=["one two", "two one", "three"])

    assert (whole.status, whole.output_text, whole.service_tier) == ("completed", "one two three", "priority")
    assert whole.usage
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (3, 3)
    assert [event.type for event in stream[:2]] == ["response.created", "response.in_progress"]
    assert [event.sequence_number for event in stream] == list(range(len(stream)))
    assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == "one two three"
    assert stream[-1].type == "response.completed"
    assert stream[-1].response.service_tier == "flex"
    assert vectors.data[0].embedding == vectors.data[1].embedding != vectors.data[2].embedding


def test_a_stream_of_messages_has_anthropics_events_and_no_done(stack: Stack) -> None:
    whole = stack.http.post("/v1/messages", json=MESSAGE).json()
    events = events_of(stack.http.post("/v1/messages", json=MESSAGE | {"stream": True}))

    assert (whole["content"], whole["stop_reason"]) == ([{"type": "text", "text": "one two three"}], "end_turn")
    assert [name for name, _ in events] == [data["type"] for _, data in events]
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[-2][1]["usage"] == {"input_tokens": 3, "output_tokens": 3}


def test_a_stream_of_named_events_is_kept_as_the_job_s(stack: Stack) -> None:
    answer = stack.http.post("/v1/messages", json=MESSAGE | {"stream": True})
    link = f"/v1/jobs/{answer.headers['x-job-id']}"
    kept = stack.http.get(f"{link}/stream").text
    whole = stack.http.get(link).json()["result"]

    lines = [line for line in kept.split("\n") if not line.startswith("id: ")]
    assert "\n".join(lines) == answer.text
    assert whole["content"] == [{"type": "text", "text": "one two three"}]


def test_errors_have_the_shape_of_their_api(stack: Stack) -> None:
    wrong = stack.http.post("/v1/messages", json={"model": "smollm2", "max_tokens": 1})
    refused = stack.http.post("/v1/messages", json=MESSAGE | {"max_tokens": 0})
    unknown = stack.http.post("/v1/messages/count_tokens", json=MESSAGE | {"model": "other"})
    openais = stack.http.post("/v1/responses", json=RESPONSE | {"max_output_tokens": 0})

    assert [answer.status_code for answer in (wrong, refused, unknown, openais)] == [400, 400, 404, 400]
    assert wrong.json()["error"].keys() == {"type", "message"}
    assert {answer.json()["type"] for answer in (wrong, refused, unknown)} == {"error"}
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert unknown.json()["error"]["type"] == "not_found_error"
    assert openais.json()["error"]["param"] == "max_tokens"


def test_a_stream_that_breaks_ends_with_an_error_of_its_api(stack: Stack) -> None:
    late = {"X-Min-Tier": "fp8", "X-Deadline-Ms": "300"}  # no worker of that tier runs; a heartbeat goes first
    ((name, of_anthropic),) = events_of(stack.http.post("/v1/messages", json=MESSAGE | {"stream": True}, headers=late))

    assert (name, of_anthropic["type"], of_anthropic["error"]["type"]) == ("error", "error", "timeout_error")
    assert "deadline" in of_anthropic["error"]["message"]
