"""workers/engines/echo.py: what it answers, how fast, and when it breaks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from bitladder.settings.worker_section import EchoSettings
from workers.engines.echo import EchoEngine
from workers.engines.errors import EngineBusyError, EngineCorruptedError, EngineFaultError, EngineLostError
from workers.output_check import fault_in

ROUTE, CHAT = "/v1/completions", "/v1/chat/completions"
BODY = b'{"model": "m", "prompt": "aa bb", "max_tokens": 6}'


async def stream_s(engine: EchoEngine, taking_s: float) -> float:
    """How long a stream takes whose reader needs so long for each token."""

    async def take(chunk: bytes) -> None:
        assert chunk.startswith(b"data: {")
        await asyncio.sleep(taking_s)

    start = time.perf_counter()
    await engine.generate(ROUTE, BODY, take)
    return time.perf_counter() - start


async def test_a_slow_reader_does_not_slow_the_tokens_behind() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=20))

    at_once, slowly = await stream_s(engine, 0), await stream_s(engine, 0.04)

    # Five gaps of 50 ms and the last token's 40 ms; added up they would be 1.8 times as long.
    assert slowly < 1.5 * at_once


async def test_the_same_seed_breaks_the_same_jobs() -> None:
    async def broken(seed: int) -> list[int]:
        engine, faults = EchoEngine(EchoSettings(ttft_ms=0, fault_ratio=0.3, seed=seed, tokens_per_s=1e9)), []
        for number in range(200):
            try:
                await engine.generate(ROUTE, BODY, None)
            except EngineFaultError:
                faults.append(number)
        return faults

    first = await broken(1)

    assert first == await broken(1) != await broken(2)
    assert len(first) == pytest.approx(60, abs=25)


async def test_a_crash_takes_down_all_that_is_in_flight_until_the_engine_is_started_again() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=20, tokens_per_s=50))
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(chunk)

    long = b'{"model": "m", "prompt": "aa bb", "max_tokens": 500}'
    crash = b'{"model": "m", "prompt": "aa echo:crash"}'
    ends = await asyncio.wait_for(
        asyncio.gather(
            engine.generate(ROUTE, long, None),
            engine.generate(ROUTE, long, take),
            engine.generate(ROUTE, crash, None),
            return_exceptions=True,
        ),
        5,
    )

    assert [type(end) for end in ends] == [EngineLostError] * 3
    assert not await engine.is_healthy()
    with pytest.raises(EngineBusyError):
        await engine.generate(ROUTE, BODY, None)
    await engine.start()
    assert await engine.is_healthy()
    assert (await engine.generate(ROUTE, BODY, None)).status == 200


async def test_a_hang_leaves_all_requests_without_a_token_until_the_engine_is_restarted() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=1, tokens_per_s=1000))
    hang = asyncio.create_task(engine.generate(ROUTE, b'{"model": "m", "prompt": "echo:hang"}', None))
    beside = asyncio.create_task(engine.generate(ROUTE, b'{"model": "m", "prompt": "a", "max_tokens": 20}', None))
    before = (await engine.load()).tokens

    done, _ = await asyncio.wait({hang, beside}, timeout=0.2)

    assert done == set()
    assert await engine.is_healthy()
    after = (await engine.load()).tokens
    assert before is not None
    assert before < (after or 0)
    assert (await engine.load()).tokens == after  # and from here on nothing comes
    await engine.start()
    assert [type(end) for end in await asyncio.gather(hang, beside, return_exceptions=True)] == [EngineLostError] * 2
    assert (await engine.generate(ROUTE, BODY, None)).status == 200


async def test_it_gives_numbers_that_are_none_and_loops_when_asked_to() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))

    with pytest.raises(EngineCorruptedError):
        await engine.generate(ROUTE, b'{"model": "m", "prompt": "echo:nan"}', None)
    loop = b'{"model": "m", "prompt": "an echo:loop", "max_tokens": 200}'
    answer = await engine.generate(ROUTE, loop, None)

    assert fault_in(answer.body, loop) == "loop"


async def test_a_stream_that_was_handing_a_token_over_when_the_engine_crashed_does_not_go_on() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))  # every token is late: nothing waits

    async def take(chunk: bytes) -> None:
        with pytest.raises(EngineLostError):
            await engine.generate(ROUTE, b'{"model": "m", "prompt": "echo:crash"}', None)
        await engine.start()

    with pytest.raises(EngineLostError):
        await asyncio.wait_for(engine.generate(ROUTE, BODY, take), 5)


@pytest.mark.parametrize(
    "body", [b'{"prompt": "x", "seed": 1e400}', b'{"prompt": "\\ud800"}', b'{"\xff": 1}', b"[1]", b""]
)
async def test_what_no_engine_can_read_is_the_requests_fault(body: bytes) -> None:
    answer = await EchoEngine(EchoSettings()).generate("/v1/completions", body, None)

    assert answer.status == 400


async def test_every_chunk_of_an_answer_has_its_id_and_the_next_answer_another_one() -> None:
    engine, ids = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9)), []

    async def take(chunk: bytes) -> None:
        ids.append(msgspec.json.decode(chunk.removeprefix(b"data: "))["id"])

    for _ in range(2):
        await engine.generate(ROUTE, BODY, take)

    assert len(ids) == 12
    assert len(set(ids[:6])) == len(set(ids[6:])) == 1
    assert ids[0] != ids[6]


async def ask(route: str, stream: bool = False, **body: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the chunks and the whole of an answer."""
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))
    chunks: list[dict[str, Any]] = []

    async def take(data: bytes) -> None:
        chunks.extend(msgspec.json.decode(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event)

    answer = await engine.generate(route, msgspec.json.encode({"model": "m"} | body), take if stream else None)
    assert answer.status == 200, answer.body
    return chunks, msgspec.json.decode(answer.body)


def chat(text: str, **more: object) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]} | more


async def test_a_chat_ends_with_its_words_and_a_completion_when_it_has_its_tokens() -> None:
    _, ended = await ask(CHAT, **chat("aa bb", max_tokens=9))
    _, cut = await ask(CHAT, **chat("aa bb", max_tokens=1))
    _, endless = await ask(CHAT, **chat("aa bb", max_tokens=3, ignore_eos=True))
    _, completion = await ask(ROUTE, prompt="aa bb")

    choices = [whole["choices"][0] for whole in (ended, cut, endless)]
    ends = [(choice["message"]["content"], choice["finish_reason"]) for choice in choices]
    assert ends == [("aa bb", "stop"), ("aa", "length"), ("aa bb aa", "length")]
    assert ended["usage"] == endless["usage"] | {"completion_tokens": 2, "total_tokens": 6}
    assert completion["choices"][0]["text"] == " ".join(["aa bb"] * 8)
    assert completion["choices"][0]["finish_reason"] == "length"


async def test_a_stream_s_texts_are_the_whole_answer_s_for_each_choice_of_each_prompt() -> None:
    body = {"prompt": ["a b c", "d e"], "n": 2, "max_tokens": 4, "stop": ["c a", "e"]}
    chunks, whole = await ask(ROUTE, stream=True, **body)

    texts = ["", "", "", ""]
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole["choices"]] == ["a b ", "b ", "d ", ""]
    assert [choice["stop_reason"] for choice in whole["choices"]] == ["c a", "c a", "e", "e"]


async def test_what_is_held_back_is_no_chunk() -> None:
    engine, sent = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9)), []

    async def take(data: bytes) -> None:
        sent.append(data)

    body = {"model": "m", "stop": ["never seen, however long it may be"]} | chat("a b c d e f")
    await engine.generate(CHAT, msgspec.json.encode(body), take)

    assert len(sent) == 2  # the role, and all that was held back
    assert all(sent)


async def test_log_probabilities_are_the_same_each_time_and_of_the_tokens_of_the_text() -> None:
    chunks, whole = await ask(ROUTE, stream=True, prompt="a b", max_tokens=3, logprobs=2, echo=True)

    logprobs = whole["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", " b", " a", " b", " a"]
    assert "".join(logprobs["tokens"]) == whole["choices"][0]["text"] == "a b a b a"
    assert logprobs["text_offset"] == [0, 1, 3, 5, 7]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][2] == logprobs["token_logprobs"][4] < 0
    assert [len(top) for top in logprobs["top_logprobs"][1:]] == [2] * 4
    for name, values in logprobs.items():
        assert [value for chunk in chunks for value in chunk["choices"][0]["logprobs"][name]] == values


async def test_tokens_of_a_text_are_its_text_again_as_a_prompt_too() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))
    text = " one  two <7>\n<8> é "
    answer = await engine.generate("/tokenize", msgspec.json.encode({"prompt": text}), None)
    tokens = msgspec.json.decode(answer.body)["tokens"]
    back = await engine.generate("/detokenize", msgspec.json.encode({"tokens": tokens}), None)
    _, whole = await ask(ROUTE, prompt=[*tokens, 5], max_tokens=6)

    assert msgspec.json.decode(back.body) == {"prompt": text}
    assert tokens[2] == 7
    assert whole["usage"]["prompt_tokens"] == len(tokens) + 1 == 6
    assert whole["choices"][0]["text"] == "one two <7> <8> é <5>"


async def test_a_tool_is_called_where_the_model_may_and_the_last_message_says_so() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    chunks, called = await ask(CHAT, stream=True, **chat("Paris echo:tool", tools=tools))
    _, written = await ask(CHAT, **chat("Paris", tools=tools))
    _, forbidden = await ask(CHAT, **chat("Paris echo:tool", tools=tools, tool_choice="none"))

    [call] = called["choices"][0]["message"]["tool_calls"]
    assert called["choices"][0]["finish_reason"] == "tool_calls"
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Pari"}'}
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert deltas[0]["id"] == call["id"]
    assert "".join(delta["function"].get("arguments", "") for delta in deltas) == call["function"]["arguments"]
    assert written["choices"][0]["message"]["content"] == "Paris"
    assert forbidden["choices"][0]["message"]["content"] == "Paris echo:tool"


async def test_an_answer_goes_on_to_the_end_of_the_context_and_no_further() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9, max_model_len=8))
    body = {"model": "m", "prompt": "a b c", "max_tokens": 8}
    answer = await engine.generate(ROUTE, msgspec.json.encode(body), None)
    too_long = await engine.generate(ROUTE, msgspec.json.encode(body | {"prompt": "a " * 8}), None)

    assert answer.completion_tokens == 5
    assert (too_long.status, b"maximum context length is 8 tokens" in too_long.body) == (400, True)


async def test_more_tokens_than_memory_holds_are_refused() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))
    body = {"model": "m", "prompt": "a", "n": 16_000, "max_tokens": 100_000}
    answer = await engine.generate(ROUTE, msgspec.json.encode(body), None)

    assert (answer.status, b"at most 1000000 tokens" in answer.body) == (400, True)
