"""workers/engines/http.py and streaming.py: token streams of a real HTTP server, as odd as engines write them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.scripted import DONE, Scripted, event, reply, scripted, stream
from workers.engines import assembly, sse
from workers.engines.base import Answer
from workers.engines.errors import EngineBusyError, EngineCorruptedError, EngineFaultError
from workers.engines.http import HttpEngine

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "prompt": "aa", "stream": True}
HEAD = {"id": "c-1", "object": "text_completion", "created": 1, "model": "m"}
CHAT_HEAD = HEAD | {"object": "chat.completion.chunk"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def text(content: str, *, index: int = 0, finish: str | None = None, **more: object) -> dict[str, Any]:
    return HEAD | {"choices": [{"index": index, "text": content, "finish_reason": finish, **more}]}


def delta(*, index: int = 0, finish: str | None = None, logprobs: object = None, **fields: object) -> dict[str, Any]:
    choice = {"index": index, "delta": fields, "logprobs": logprobs, "finish_reason": finish}
    return CHAT_HEAD | {"choices": [choice]}


def chunks_of(chunks: list[bytes]) -> list[dict[str, Any]]:
    """Return what a client that knows nothing but `data: ` lines reads."""
    events = b"".join(chunks).split(b"\n\n")
    assert events.pop() == b""
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    return [json.loads(event[6:]) for event in events]


class Asking:
    """An engine on a scripted server, and the chunks that came from it."""

    def __init__(self, script: Scripted) -> None:
        self.script, self.engine = script, HttpEngine(script.url, "m")
        self.chunks: list[bytes] = []

    async def take(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    async def stream(self, *parts: bytes, endpoint: str = COMPLETIONS, body: dict[str, Any] = BODY) -> Answer:
        self.script.say(stream(*parts))
        return await self.ask(endpoint, body)

    async def ask(self, endpoint: str = COMPLETIONS, body: dict[str, Any] = BODY) -> Answer:
        self.chunks.clear()
        content = json.dumps(body).encode()
        return await asyncio.wait_for(self.engine.generate(endpoint, content, self.take), 20)

    def texts(self) -> list[str]:
        return [choice["text"] for chunk in chunks_of(self.chunks) for choice in chunk["choices"]]


@pytest.fixture
async def its() -> AsyncIterator[Asking]:
    async with scripted() as script:
        asking = Asking(script)
        yield asking
        await asking.engine.stop()


A, B = json.dumps(text("a")).encode(), json.dumps(text("b", finish="stop")).encode()
ODD_STREAMS = {
    "comments": b": hello\n\ndata: " + A + b"\n: between\n\n: ping\n\ndata: " + B + b"\n\n",
    "ids and retry": b"retry: 3000\n\nid: 1\ndata: " + A + b"\n\nid: 2\n\nid: 3\ndata: " + B + b"\n\n",
    "event fields": b"event: message\ndata: " + A + b"\n\nevent: completion\ndata: " + B + b"\n\n",
    "a block of everything": b": c\nid: 1\nevent: message\nretry: 1\ndata: " + A + b"\n\ndata: " + B + b"\n\n",
    "several data lines": b"data: " + A.replace(b", ", b",\ndata: ") + b"\n\ndata:" + B + b"\n\n",
    "CR": b"data: " + A + b"\r\rdata: " + B + b"\r\r",
    "CRLF": b"data: " + A + b"\r\n\r\ndata: " + B + b"\r\n\r\n",
    "a byte order mark": b"\xef\xbb\xbfdata: " + A + b"\n\ndata: " + B + b"\n\n",
    "pings of all kinds": b"data: ping\n\ndata:\n\ndata: null\n\ndata: []\n\nevent: ping\ndata: {}\n\n"
    b'data: {"type":"ping"}\n\ndata: ' + A + b"\n\ndata: " + B + b"\n\n",
}


@pytest.mark.parametrize("odd", ODD_STREAMS.values(), ids=list(ODD_STREAMS))
@pytest.mark.parametrize("tail", [DONE, b"data: [DONE]\r\n\r\n", b"event: end\ndata: [DONE]\n\n", b"data: [DONE]"])
async def test_a_sound_stream_is_read_and_passed_on_in_the_one_form_that_every_client_reads(
    its: Asking, odd: bytes, tail: bytes
) -> None:
    answer = await its.stream(odd + tail)

    assert its.texts() == ["a", "b"]
    assert json.loads(answer.body)["choices"][0]["text"] == "ab"


async def test_a_stream_may_be_cut_anywhere_between_two_reads(its: Asking) -> None:
    whole = ODD_STREAMS["a block of everything"].replace(b"\n", b"\r\n") + DONE

    await its.stream(*(whole[at : at + 1] for at in range(len(whole))))

    assert its.texts() == ["a", "b"]


async def test_the_bytes_of_a_chunk_are_passed_on_as_they_came(its: Asking) -> None:
    odd = b'{"choices": [ {"index":0,"text":"\\u00e9\xc3\xa9 \\ud83d","new_field":1e2} ],  "x":{}}'

    await its.stream(b"data:" + odd + b"\n\n", DONE)

    assert its.chunks == [b"data: " + odd + b"\n\n"]


async def test_bytes_that_are_no_utf_8_are_replaced_as_a_browser_would(its: Asking) -> None:
    answer = await its.stream(b'data: {"choices":[{"index":0,"text":"a\xffb"}]}\n\n', DONE)

    assert its.texts() == ["a\N{REPLACEMENT CHARACTER}b"]
    assert json.loads(answer.body)["choices"][0]["text"] == "a\N{REPLACEMENT CHARACTER}b"


ERROR = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}


@pytest.mark.parametrize(
    "error",
    [
        event({"error": ERROR}),
        b"event: error\n" + event({"message": "EngineCore encountered an issue."}),
        b"event: error\ndata: EngineCore encountered an issue.\n\n",
        event({"object": "error", "message": "EngineCore encountered an issue.", "code": 50001}),
        event(text("b") | {"error": ERROR}),
        event({"error": "EngineCore encountered an issue."}),
    ],
)
async def test_an_error_in_a_stream_is_a_fault_whatever_its_form_and_whatever_follows(
    its: Asking, error: bytes
) -> None:
    with pytest.raises(EngineFaultError, match="EngineCore encountered an issue"):
        await its.stream(event(text("a")), error, DONE)

    assert its.texts() == ["a"]


@pytest.mark.parametrize("finish", ["error", "abort"])
async def test_an_answer_that_was_broken_off_is_not_finished(its: Asking, finish: str) -> None:
    with pytest.raises(EngineFaultError, match=finish):
        await its.stream(event(text("a")), event(text("", finish=finish)), DONE)
    its.script.say(reply(HEAD | {"choices": [{"index": 0, "text": "a", "finish_reason": finish}]}))
    with pytest.raises(EngineFaultError, match=finish):
        await its.engine.generate(COMPLETIONS, b"{}", None)


async def test_a_chunk_that_is_cut_within_is_a_fault_because_tokens_would_be_missing(its: Asking) -> None:
    with pytest.raises(EngineFaultError, match="not JSON"):
        await its.stream(event(text("a")), b'data: {"choices":[{"ind\n\n', event(text("b")), DONE)


@pytest.mark.parametrize("parts", [[event(text("a"))], [event(text("a")), b"data: " + B], []])
async def test_a_stream_that_ends_before_its_end_is_a_fault(its: Asking, parts: list[bytes]) -> None:
    with pytest.raises(EngineFaultError, match="ended early"):
        await its.stream(*parts)


@pytest.mark.parametrize(
    "said", [b"", b"event: error\n\n", b": hello\n\n", event(HEAD | {"choices": [], "usage": USAGE})]
)
async def test_a_stream_that_ends_in_order_with_nothing_in_it_is_a_fault(its: Asking, said: bytes) -> None:
    with pytest.raises(EngineFaultError, match="without an answer"):
        await its.stream(said, DONE)


async def test_an_answer_without_any_choice_is_a_fault(its: Asking) -> None:
    for nothing in ({}, HEAD | {"choices": []}, HEAD | {"choices": None}):
        its.script.say(reply(nothing))
        with pytest.raises(EngineFaultError, match="no choices"):
            await its.engine.generate(COMPLETIONS, b"{}", None)


async def test_what_an_engine_says_instead_of_a_stream_is_heard(its: Asking) -> None:
    its.script.say(reply({"error": {"message": "provider down", "code": 502}}))
    with pytest.raises(EngineFaultError, match="provider down"):
        await its.ask()

    its.script.say(reply({"error": {"message": "no such tool", "code": 400}}))
    assert (await its.ask()).status == 400

    its.script.say(reply(text("a", finish="stop")))
    with pytest.raises(EngineFaultError, match="did not stream"):
        await its.ask()


async def test_chunks_without_a_token_are_kept_until_the_answer_is_judged(its: Asking) -> None:
    parts = [event(text("")), event(text("", finish="length"))]

    answer = await its.stream(*parts, DONE)

    assert its.chunks == []
    assert answer.unsent == b"".join(parts)


async def test_a_line_without_an_end_is_a_fault(its: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100_000)

    with pytest.raises(EngineFaultError, match="at most 100000 bytes"):
        await its.stream(*[b"data: " + b"x" * 10_000] * 20)


async def test_a_request_that_is_found_wrong_in_its_stream_is_refused_and_a_busy_engine_is_busy(its: Asking) -> None:
    wrong = await its.stream(
        event({"error": {"message": "no such tool", "type": "BadRequestError", "code": 400}}), DONE
    )
    assert (wrong.status, json.loads(wrong.body)["error"]["message"]) == (400, "no such tool")
    assert its.chunks == []

    role, busy = event(delta(role="assistant", content="")), event({"error": {"message": "full", "code": 503}})
    with pytest.raises(EngineBusyError):
        await its.stream(role, busy, DONE, endpoint=CHAT)
    assert its.chunks == []  # a role is no token: the job may run on another tier, and its client sees no restart

    # An engine that has given tokens had accepted the request: what it says then is about itself.
    for code in (400, 503):
        with pytest.raises(EngineFaultError, match="x"):
            await its.stream(event(text("a")), event({"error": {"message": "x", "code": code}}), DONE)


async def test_an_answer_of_status_200_that_is_an_error_is_none(its: Asking) -> None:
    its.script.say(reply({"error": {"message": "provider down", "code": 502}}))

    with pytest.raises(EngineFaultError, match="provider down"):
        await its.engine.generate(COMPLETIONS, b"{}", None)


NULLS = {
    "completion": (
        COMPLETIONS,
        text("a", logprobs={"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [None]}),
    ),
    "completion, top": (COMPLETIONS, text("a", logprobs={"token_logprobs": [-1.0], "top_logprobs": [{"a": None}]})),
    "chat": (CHAT, delta(content="a", logprobs={"content": [{"token": "a", "logprob": None, "top_logprobs": []}]})),
    "chat, top": (
        CHAT,
        delta(
            content="a", logprobs={"content": [{"logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": None}]}]}
        ),
    ),
}


@pytest.mark.parametrize(("endpoint", "chunk"), NULLS.values(), ids=list(NULLS))
@pytest.mark.parametrize("bare", [False, True])
async def test_a_stream_with_a_log_probability_that_is_no_number_is_corrupted_and_not_passed_on(
    its: Asking, endpoint: str, chunk: dict[str, Any], bare: bool
) -> None:
    data = event(chunk)
    data = data.replace(b"null", b"NaN") if bare else data

    with pytest.raises(EngineCorruptedError):
        await its.stream(event(delta(role="assistant", content="")), data, DONE, endpoint=endpoint)

    assert its.chunks == []


async def test_only_the_first_token_of_an_echoed_prompt_may_have_no_probability(its: Asking) -> None:
    first, later = {"token_logprobs": [None, -0.1, -0.2]}, {"token_logprobs": [None]}
    echoing = BODY | {"echo": True, "n": 2}

    sound = [event(text("aa b", logprobs=first)), event(text("aa c", index=1, logprobs=first)), DONE]
    assert (await its.stream(*sound, body=echoing)).status == 200
    with pytest.raises(EngineCorruptedError):
        await its.stream(sound[0], event(text("c", logprobs=later)), DONE, body=echoing)
    with pytest.raises(EngineCorruptedError):
        await its.stream(*sound)

    its.script.say(reply(text("aa b", finish="length", logprobs=first)))
    assert (await its.engine.generate(COMPLETIONS, json.dumps(echoing).encode(), None)).status == 200
    with pytest.raises(EngineCorruptedError):
        await its.engine.generate(COMPLETIONS, b'{"prompt": "aa"}', None)


async def test_the_tokens_are_asked_for_and_kept_from_a_client_that_did_not_ask(its: Asking) -> None:
    parts = [event(text("a")), event(text("b", finish="stop")), event(HEAD | {"choices": [], "usage": USAGE}), DONE]

    answer = await its.stream(*parts)
    assert its.script.asked[-1] == BODY | {"stream_options": {"include_usage": True}}
    assert its.texts() == ["a", "b"]
    assert len(chunks_of(its.chunks)) == 2
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 2)
    assert json.loads(answer.body)["usage"] == USAGE

    its_own = BODY | {"stream_options": {"include_usage": True, "continuous_usage_stats": False}}
    await its.stream(*parts, body=its_own)
    assert its.script.asked[-1] == its_own
    assert chunks_of(its.chunks)[-1]["usage"] == USAGE

    await its.stream(*parts, body=BODY | {"stream_options": {"continuous_usage_stats": True}})
    assert its.script.asked[-1]["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}
    await its.stream(*parts, body=BODY | {"stream_options": "odd"})
    assert its.script.asked[-1]["stream_options"] == "odd"  # the engine's to refuse


async def test_an_engine_that_knows_no_stream_options_is_asked_without_them_from_then_on(its: Asking) -> None:
    refusal = reply({"error": {"message": "unknown field stream_options", "code": 422}}, 422)
    its.script.say(refusal, stream(event(text("a")), event(text("b", finish="stop")), DONE))

    answers = [await its.ask(), await its.ask()]

    assert [answer.completion_tokens for answer in answers] == [2, 2]  # counted
    assert ["stream_options" in body for body in its.script.asked] == [True, False, False]


async def test_a_streamed_chat_s_record_is_the_unstreamed_answer(its: Asking) -> None:
    def call(at: int, **fields: object) -> dict[str, Any]:
        return delta(tool_calls=[{"index": at, **fields}])

    one = {"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": [{"token": "x", "logprob": -0.1}]}
    answer = await its.stream(
        event(delta(role="assistant", content="")),
        event(delta(index=1, role="assistant", content="")),
        event(delta(reasoning="let me ")),
        event(delta(index=1, content="Hel", logprobs={"content": [one]})),
        event(delta(reasoning="think")),
        event(call(0, id="t1", type="function", function={"name": "look", "arguments": ""})),
        event(call(0, function={"arguments": '{"a":'})),
        event(delta(index=1, content="lo", logprobs={"content": [one | {"token": "y"}]})),
        event(call(0, function={"arguments": "1}"})),
        event(call(1, id="t2", type="function", function={"name": "see", "arguments": "{}"})),
        event(delta(finish="tool_calls")),
        event(delta(index=1, finish="stop", content="!")),
        event(CHAT_HEAD | {"choices": [], "usage": USAGE, "system_fingerprint": "fp"}),
        DONE,
        endpoint=CHAT,
    )

    assert json.loads(answer.body) == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "system_fingerprint": "fp",
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "reasoning": "let me think",
                    "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
                        {"id": "t2", "type": "function", "function": {"name": "see", "arguments": "{}"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": "Hello!"},
                "logprobs": {"content": [one, one | {"token": "y"}]},
                "finish_reason": "stop",
            },
        ],
    }
    assert answer.ttft_s is not None


@pytest.mark.parametrize(
    "first",
    [
        {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]},
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
    ],
)
async def test_what_is_no_text_counts_as_a_token_too(its: Asking, first: dict[str, Any]) -> None:
    answer = await its.stream(event(delta(role="assistant", content="")), event(delta(**first)), DONE, endpoint=CHAT)

    assert answer.completion_tokens == 1
    assert answer.ttft_s is not None


async def test_a_streamed_completion_s_record_is_the_unstreamed_answer(its: Asking) -> None:
    def logprobs(token: str) -> dict[str, Any]:
        return {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [{token: -0.5}], "text_offset": [0]}

    answer = await its.stream(
        event(text("a", logprobs=logprobs("a"), token_ids=[1])),
        event(text("b", index=1, logprobs=logprobs("b"))),
        event(text(" c", logprobs=logprobs(" c"), token_ids=[2], finish="length", stop_reason=None)),
        event(text("", index=1, finish="stop", stop_reason=7)),
        DONE,
        body=BODY | {"n": 2},
    )

    first, second = json.loads(answer.body)["choices"]
    assert (first["text"], first["finish_reason"], first["token_ids"]) == ("a c", "length", [1, 2])
    assert first["logprobs"] == {
        "tokens": ["a", " c"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"a": -0.5}, {" c": -0.5}],
        "text_offset": [0, 0],
    }
    assert (second["text"], second["finish_reason"], second["stop_reason"]) == ("b", "stop", 7)


async def test_what_a_producer_asked_to_stream_without_taking_chunks_is_answered_whole(its: Asking) -> None:
    its.script.say(stream(event(text("a")), event(text("b", finish="stop")), DONE))

    answer = await its.engine.generate(COMPLETIONS, json.dumps(BODY).encode(), None)

    assert json.loads(answer.body)["choices"][0]["text"] == "ab"


async def test_a_record_is_bounded_and_loses_its_lists_before_its_text(
    its: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "MAX_LISTS", 1000)
    parts = [event(text("word ", logprobs={"token_logprobs": [-0.5] * 20})) for _ in range(50)]

    answer = await its.stream(*parts, DONE)
    choice = json.loads(answer.body)["choices"][0]
    assert (choice["text"], choice["logprobs"]) == ("word " * 50, {"token_logprobs": None})
    assert len(its.texts()) == 50

    monkeypatch.setattr(assembly, "MAX_TEXT", 1000)
    assert (await its.stream(*parts * 5, DONE)).body == b""
    assert len(its.texts()) == 250


async def test_halves_of_a_character_that_come_in_two_chunks_are_one_in_the_record(its: Asking) -> None:
    answer = await its.stream(event(text("a\ud83d")), event(text("\ude00b")), event(text("\ud800")), DONE)

    assert json.loads(answer.body)["choices"][0]["text"] == "a\U0001f600b\N{REPLACEMENT CHARACTER}"
    its.script.say(reply(text("a\ud83d")))
    plain = await its.engine.generate(COMPLETIONS, b"{}", None)
    assert json.loads(plain.body)["choices"][0]["text"] == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("odd", ODD_STREAMS.values(), ids=list(ODD_STREAMS))
async def test_openais_own_client_reads_what_is_passed_on(its: Asking, odd: bytes) -> None:
    await its.stream(odd + DONE)
    async with scripted() as front:
        front.say(stream(*its.chunks, DONE))
        async with openai.AsyncOpenAI(base_url=front.url, api_key="x", max_retries=0) as client:
            answer = await client.completions.create(model="m", prompt="aa", stream=True)
            texts = [choice.text async for chunk in answer for choice in chunk.choices]

    assert texts == ["a", "b"]
