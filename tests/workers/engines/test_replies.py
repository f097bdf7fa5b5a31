"""workers/engines/replies.py: on whose account an answer goes that is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.scripted import Scripted, reply, scripted
from workers.engines import http
from workers.engines.base import Answer
from workers.engines.errors import EngineBusyError, EngineCorruptedError, EngineError, EngineFaultError
from workers.engines.http import HttpEngine

ROUTE = "/v1/completions"


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script


async def asked(script: Scripted) -> Answer:
    engine = HttpEngine(script.url, "m")
    try:
        return await engine.generate(ROUTE, b'{"model": "m", "prompt": "a", "logprobs": 1}', None)
    finally:
        await engine.stop()


def vllm_error(message: str, kind: str = "BadRequestError", code: int = 400) -> bytes:
    return reply({"error": {"message": message, "type": kind, "param": None, "code": code}}, code)


@pytest.mark.parametrize(
    "word",
    ["Out of range float values are not JSON compliant", "Out of range float values are not JSON compliant: nan"],
)
async def test_nan_that_vllm_cannot_write_is_its_own_and_not_the_client_s_fault(script: Scripted, word: str) -> None:
    script.say(vllm_error(word))

    with pytest.raises(EngineCorruptedError, match="not JSON compliant"):
        await asked(script)


@pytest.mark.parametrize(
    "message",
    [
        "Object of type ndarray is not JSON serializable",
        "1 validation error for ChatCompletionResponse\nchoices.0.message",
        "2 validation errors for CompletionResponse",
    ],
)
async def test_a_400_that_speaks_of_the_answer_is_the_engine_s_fault(script: Scripted, message: str) -> None:
    script.say(vllm_error(message))

    with pytest.raises(EngineFaultError) as raised:
        await asked(script)
    assert not isinstance(raised.value, EngineCorruptedError)


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
async def test_an_error_about_the_request_is_its_client_s(script: Scripted, status: int) -> None:
    script.say(vllm_error("max_tokens is too large: JSON, NaN or not", code=status))

    answer = await asked(script)

    assert answer.status == status
    assert json.loads(answer.body)["error"]["message"] == "max_tokens is too large: JSON, NaN or not"


@pytest.mark.parametrize("said", [b"<html>Request Entity Too Large</html>", b'{"detail": "' + b"x" * 100_000 + b'"}'])
async def test_an_error_in_no_form_or_without_measure_is_told_in_openais(script: Scripted, said: bytes) -> None:
    script.say(reply(said, 413))

    answer = await asked(script)

    error = json.loads(answer.body)["error"]
    assert error["code"] == answer.status == 413
    assert error["message"] == said[:500].decode()


@pytest.mark.parametrize("status", [204, 301, 302, 401, 402, 407, 408, 500, 502, 504, 529])
async def test_what_the_request_has_no_part_in_is_the_engine_s_fault(script: Scripted, status: int) -> None:
    script.say(reply(b"" if status == 204 else b"no", status, location="/elsewhere"))

    with pytest.raises(EngineFaultError, match=str(status)):
        await asked(script)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry_after": "30"}, 30.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "30", "retry_after_ms": "250"}, 0.25),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}, 30.0),
        ({"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
    ],
)
async def test_a_busy_engine_says_for_how_long(
    script: Scripted, status: int, headers: dict[str, str], wait_s: float | None
) -> None:
    script.say(reply({"error": {"message": "Rate limit reached"}}, status, **headers))

    with pytest.raises(EngineBusyError, match="Rate limit reached") as raised:
        await asked(script)
    assert raised.value.retry_after_s == wait_s


@pytest.mark.parametrize("field", ["code", "type"])
async def test_a_quota_that_is_used_up_is_no_busyness(script: Scripted, field: str) -> None:
    error: dict[str, Any] = {"message": "You exceeded your current quota", field: "insufficient_quota"}
    script.say(reply({"error": error}, 429, retry_after="20"))

    with pytest.raises(EngineFaultError, match="quota is used up"):
        await asked(script)


async def test_an_engine_that_is_busy_at_its_start_is_there(script: Scripted) -> None:
    script.say(reply({"error": {"message": "Rate limit reached"}}, 429, retry_after="20"))
    engine = HttpEngine(script.url, "m")

    await engine.start()
    await engine.stop()

    nowhere = HttpEngine("http://127.0.0.1:9", "m")
    with pytest.raises(EngineError):
        await nowhere.start()
    await nowhere.stop()


async def test_an_answer_beyond_all_measure_is_not_read_to_its_end(
    script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1000)
    script.say(reply(b"x" * 5000))

    with pytest.raises(EngineFaultError, match="at most 1000 bytes"):
        await asked(script)
