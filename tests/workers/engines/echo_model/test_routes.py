"""The echo engine answers at the other routes as vLLM does: the same fields, types, events and reasons.

vllm_routes.json holds what vLLM answered at those that its model can do, and what it says at the others;
`RECORD_VLLM=1 python -m pytest -m vllm tests/workers/engines/echo_model/test_routes.py` writes it anew.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bitladder.endpoints import Endpoint
from bitladder.settings.worker_section import EchoSettings
from tests.workers.engines.echo_model.cases import SCHEMA
from tests.workers.engines.echo_model.shapes import shape
from tests.workers.engines.echo_model.test_contract import started_vllm
from workers.engines.base import Answer, Engine
from workers.engines.echo import EchoEngine

Body = dict[str, Any]
R, M = Endpoint.RESPONSES, Endpoint.MESSAGES
RECORD = Path(__file__).parent / "vllm_routes.json"
RECORDED: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
TOOL = {"type": "function", "name": "set_level", "parameters": SCHEMA, "strict": True}


def response(content: object = "One two three", **more: object) -> tuple[Endpoint, Body]:
    return R, {
        "model": "smollm2",
        "input": content,
        "max_output_tokens": 2,
        "temperature": 0,
        "ignore_eos": True,
    } | more


def message(content: object = "One two three", **more: object) -> tuple[Endpoint, Body]:
    messages = [{"role": "user", "content": content}]
    return M, {"model": "smollm2", "messages": messages, "max_tokens": 2, "temperature": 0} | more


CALL: Body = {
    "tools": [TOOL],
    "tool_choice": {"type": "function", "name": "set_level"},
    "max_output_tokens": 300,
    "ignore_eos": False,
}
PARTS = [{"role": "user", "content": [{"type": "input_text", "text": "One two three"}]}]
CASES: dict[str, tuple[Endpoint, Body]] = {
    "a response": response(),
    "a response to items": response(PARTS, instructions="Be short", metadata={"a": "b"}),
    "a streamed response": response(stream=True),
    "a call in a response": response(**CALL),
    "a streamed call in a response": response(**CALL, stream=True),
    "a message": message(),
    "a message to blocks": message([{"type": "text", "text": "One two three"}], system="Be short"),
    "a streamed message": message(stream=True),
    "the tokens of a message": (Endpoint.COUNT_TOKENS, message()[1]),
    "tokens": (Endpoint.TOKENIZE, {"model": "smollm2", "prompt": "One two three"}),
    "the version": (Endpoint.VERSION, {"model": "smollm2"}),
}
REFUSED: dict[str, tuple[Endpoint, Body]] = {
    "a response without tokens": response(max_output_tokens=0),
    "a message without tokens": message(max_tokens=0),
    "embeddings": (Endpoint.EMBEDDINGS, {"model": "smollm2", "input": "One"}),
    "a score": (Endpoint.SCORE_V1, {"model": "smollm2", "text_1": "One", "text_2": "two"}),
    "ranks": (Endpoint.RERANK_V1, {"model": "smollm2", "query": "One", "documents": ["two"]}),
    "classes": (Endpoint.CLASSIFY, {"model": "smollm2", "input": "One"}),
    "vectors": (Endpoint.POOLING, {"model": "smollm2", "input": "One"}),
}


def echo() -> EchoEngine:
    return EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))


async def asked(engine: Engine, endpoint: Endpoint, body: Body) -> tuple[Answer, bytes]:
    """Return the answer of an engine, and the events that came before."""
    chunks: list[bytes] = []

    async def take(data: bytes) -> None:
        chunks.append(data)

    answer = await engine.generate(endpoint, json.dumps(body).encode(), take if body.get("stream") else None)
    return answer, b"".join([*chunks, answer.unsent])


async def replied(engine: Engine, endpoint: Endpoint, body: Body) -> dict[str, Any]:
    """Return the shape of an answer: of a stream, of each kind of its events in their order."""
    answer, chunks = await asked(engine, endpoint, body)
    events = [dict(line.split(": ", 1) for line in event.split("\n")) for event in chunks.decode().split("\n\n")[:-1]]
    kinds = [
        json.dumps(shape(value) | {"event": event["event"]}, sort_keys=True)
        for event in events
        if (value := json.loads(event["data"]))
    ]
    whole = json.loads(answer.body)
    if answer.status != 200:
        error = whole["error"]
        return {"status": answer.status, "message": error["message"] if "echo" not in error["message"] else ""}
    return {"answer": shape(whole), "events": [json.loads(kind) for kind, _ in itertools.groupby(kinds)]}


@pytest.mark.parametrize("name", CASES)
async def test_the_echo_engine_answers_at_each_route_as_vllm_does(name: str) -> None:
    assert await replied(echo(), *CASES[name]) == RECORDED[name]


def test_a_route_that_a_model_cannot_do_has_an_error_of_its_own() -> None:
    routes = {CASES.get(name, REFUSED.get(name, (None,)))[0] for name, reply in RECORDED.items() if "status" in reply}

    assert Endpoint.EMBEDDINGS in routes
    assert all(400 <= RECORDED[name]["status"] < 500 and RECORDED[name]["message"] for name in REFUSED)


@pytest.mark.vllm
async def test_vllm_answers_at_each_route_as_it_did_when_its_answers_were_recorded() -> None:
    async with started_vllm() as vllm:
        replies = {name: await asyncio.wait_for(replied(vllm, *case), 120) for name, case in (CASES | REFUSED).items()}
    if os.environ.get("RECORD_VLLM"):
        RECORD.write_text(json.dumps(replies, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    assert replies == json.loads(RECORD.read_text(encoding="utf-8"))
