"""workers/engines/named_events.py: streams of /v1/responses and /v1/messages from a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bitladder.endpoints import Endpoint
from tests.scripted import DONE, Scripted, reply, scripted, stream
from workers.engines.base import Answer
from workers.engines.errors import EngineBusyError, EngineCorruptedError, EngineFaultError
from workers.engines.http import HttpEngine

Fields = dict[str, Any]
RESPONSE: Fields = {"id": "resp_1", "output": [], "usage": {"input_tokens": 3, "output_tokens": 2}}
DELTA = {"type": "response.output_text.delta", "delta": "a", "logprobs": []}
COMPLETED = {"type": "response.completed", "response": RESPONSE}
CREATED = {"type": "response.created", "response": {}}
USAGE = {"input_tokens": 3, "output_tokens": 0}
START = {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": USAGE}}
STOP = {"type": "message_stop"}


def named(value: Fields) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (value["type"].encode(), json.dumps(value).encode())


def block(kind: Fields, *deltas: Fields, index: int = 0) -> list[Fields]:
    parts = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    head = {"type": "content_block_start", "index": index, "content_block": kind}
    return [head, *parts, {"type": "content_block_stop", "index": index}]


class Asking:
    """An engine on a scripted server, and the events that came from it."""

    def __init__(self, script: Scripted) -> None:
        self.script, self.engine, self.sent = script, HttpEngine(script.url, "m"), b""

    async def take(self, events: bytes) -> None:
        self.sent += events

    async def stream(self, endpoint: Endpoint, *parts: bytes, ends: bool = True) -> Answer:
        self.script.say(stream(*parts, ends=ends))
        return await self.engine.generate(endpoint, b'{"model": "m"}', self.take)

    async def ask(self, endpoint: Endpoint, said: bytes) -> Answer:
        self.script.say(said)
        return await self.engine.generate(endpoint, b'{"model": "m"}', None)


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    async with scripted() as script:
        asking = Asking(script)
        yield asking
        await asking.engine.stop()


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete"])
async def test_a_response_passes_with_its_names_and_its_end_is_the_answer(asking: Asking, end: str) -> None:
    events = [named(CREATED), named(DELTA), named(COMPLETED | {"type": end})]

    answer = await asking.stream(Endpoint.RESPONSES, *events, DONE)

    assert asking.sent == b"".join(events)
    assert json.loads(answer.body) == RESPONSE
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 2)
    assert asking.script.asked == [{"model": "m", "stream": True}]


async def test_names_come_from_the_data_where_an_engine_writes_none(asking: Asking) -> None:
    nameless = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in (DELTA, COMPLETED))

    await asking.stream(Endpoint.RESPONSES, b": ping\n\nid: 4\n\n" + nameless)

    assert asking.sent == named(DELTA) + named(COMPLETED)


async def test_a_message_is_put_together_of_its_parts(asking: Asking) -> None:
    blocks: list[Fields] = [
        *block({"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"}),
        *block({"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in "ab"), index=1),
        *block(
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"a":'},
            {"type": "input_json_delta", "partial_json": " 1}"},
            index=2,
        ),
    ]
    reasons = {"stop_reason": "tool_use", "stop_sequence": None}
    delta: Fields = {"type": "message_delta", "delta": reasons, "usage": {"output_tokens": 7}}
    values: list[Fields] = [START, {"type": "ping"}, *blocks, delta, STOP]
    events = list(map(named, values))

    answer = await asking.stream(Endpoint.MESSAGES, *events)

    assert asking.sent == b"".join(events)
    assert json.loads(answer.body) == {
        "id": "m",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 7},
    }
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 7)


BAD_LOGPROBS = DELTA | {"logprobs": [{"token": "a", "logprob": None}]}
ERROR = {"type": "error", "error": {"type": "internal_error", "message": "broke"}}


@pytest.mark.parametrize(
    ("endpoint", "events", "error"),
    [
        (Endpoint.RESPONSES, [DELTA], EngineFaultError),  # no end
        (Endpoint.MESSAGES, [START, ERROR], EngineFaultError),
        (Endpoint.RESPONSES, [CREATED, {"type": "error", "code": "server_error", "message": "x"}], EngineFaultError),
        (Endpoint.RESPONSES, [CREATED, {"type": "error", "code": "503", "message": "full"}], EngineBusyError),
        (Endpoint.RESPONSES, [{"type": "response.failed", "response": {"error": {"message": "x"}}}], EngineFaultError),
        (Endpoint.RESPONSES, [BAD_LOGPROBS, COMPLETED], EngineCorruptedError),
    ],
)
async def test_a_stream_that_is_broken_off_is_no_answer(
    asking: Asking, endpoint: Endpoint, events: list[Fields], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await asking.stream(endpoint, *map(named, events))


async def test_what_is_wrong_with_a_request_is_its_answer(asking: Asking) -> None:
    wrong = {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}}

    answer = await asking.stream(Endpoint.MESSAGES, named(wrong))

    assert (answer.status, asking.sent) == (400, b"")
    assert b"too long" in answer.body


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        (reply({"detail": "Not Found"}, 404), 404, "no route /v1/embeddings"),
        (reply({"error": {"message": "The model does not support Embeddings API", "code": 501}}, 501), 501, "support"),
        (reply(b"\x00\x01", content_type="application/octet-stream"), 400, "encoding_format"),
    ],
)
async def test_what_a_model_cannot_do_is_an_answer_and_no_fault(
    asking: Asking, said: bytes, status: int, message: str
) -> None:
    answer = await asking.ask(Endpoint.EMBEDDINGS, said)

    assert answer.status == status
    assert message in json.loads(answer.body)["error"]["message"]


async def test_an_answer_without_its_field_is_a_fault(asking: Asking) -> None:
    with pytest.raises(EngineFaultError, match="has no data"):
        await asking.ask(Endpoint.EMBEDDINGS, reply({"object": "list"}))
