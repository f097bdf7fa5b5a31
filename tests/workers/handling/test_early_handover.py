"""workers/handling/cascading.py: answers that are judged by their beginning, with real workers on a real Valkey."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from bitladder.client import Client
from bitladder.contract import Outcome
from bitladder.entries import Body
from bitladder.producer import Producer
from bitladder.settings.sections import Settings
from tests.conftest import Stack, make_settings, wait_until
from tests.scripted import DONE, event, reply, scripted, stream
from tests.workers.handling.test_cascading import outcome_of, running
from tests.workers.test_pump import until
from workers.engines.echo import EchoEngine
from workers.engines.execution_log import Line
from workers.engines.http import HttpEngine
from workers.pump import Pump

AFTER = 4
CURVE = {"after_tokens": AFTER, "margins": [0.1, 0.9], "confidences": [0.1, 0.95]}
SURE_WORDS, UNSURE_WORDS = " ".join(f"w{at}" for at in range(40)), " ".join(["echo:unsure"] * AFTER)


def chat(words: str, **fields: object) -> Body:
    return {"model": "smollm2", "messages": [{"role": "user", "content": words}], **fields}


# As a whole the first would be kept, and the second one not.
UNSURE_FIRST, SURE_FIRST = (
    chat(f"{UNSURE_WORDS} {SURE_WORDS}"),
    chat(f"one two three four {' '.join([UNSURE_WORDS] * 9)}"),
)

SHOWN = {"logprobs": True, "top_logprobs": 2}


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    file = tmp_path / "calibration.json"
    file.write_bytes(msgspec.json.encode({"format": 1, "statistic": "mean", "models": {"smollm2": {"int4": CURVE}}}))
    return str(file)


@pytest.fixture
def early(redis_url: str, calibration: str) -> Callable[..., Settings]:
    return lambda **flags: make_settings(redis_url, cascade__calibration=calibration, **flags)


async def warmed_up(producer: Producer) -> None:
    """Let a worker see a whole answer of the route: it is how it knows what one has."""
    assert (await outcome_of(producer, chat("word"))).confidence == 0.95


def content_of(outcome: Outcome) -> Any:  # noqa: ANN401
    """Return an answer, but for what differs between any two."""
    return msgspec.json.decode(outcome.answer or b"null") | {"id": "", "created": 0}


def ends_of(log: Path) -> list[tuple[str, str | None, int]]:
    """Return tier and end of each execution, in their order, and how long it took (ms)."""
    lines = [msgspec.json.decode(line, type=Line) for line in log.read_bytes().splitlines()]
    begins = {line.fence: line.at_ms for line in lines if line.how is None}
    return [(line.tier, line.how, line.at_ms - begins[line.fence]) for line in lines if line.how]


async def test_an_answer_is_handed_over_as_soon_as_its_beginning_is_too_unsure(
    early: Callable[..., Settings], store: redis.Redis, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    slow, fast = early(echo__tokens_per_s=40, echo__execution_log=str(log)), early(echo__tokens_per_s=1e6)
    with Producer(slow) as producer:
        async with running(int4=slow, int8=fast):
            await warmed_up(producer)
            handed = await outcome_of(producer, UNSURE_FIRST)
            kept = await outcome_of(producer, SURE_FIRST)
            plain = await outcome_of(producer, SURE_FIRST, x_cascade="false")

    assert [(outcome.tier, outcome.attempts, outcome.confidence) for outcome in (handed, kept, plain)] == [
        ("int8", 2, None),
        ("int4", 1, 0.95),
        ("int4", 1, None),
    ]
    _, (_, how, handed_ms), (_, _, whole_ms), _ = ends_of(log)
    assert (how, handed_ms < whole_ms / 2) == ("aborted", True)
    of_int8 = handed.run_ms / 3_600_000 * fast.model("smollm2").tier("int8").price_per_hour
    assert 0 < (handed.cost or 0) - of_int8 < (kept.cost or 0) / 2  # what int4 spent until then
    assert content_of(kept) == content_of(plain)
    assert list(content_of(kept)) == list(content_of(plain))
    assert kept.ttft_ms is None  # to its client nothing was streamed


@pytest.mark.parametrize(
    ("bodies", "max_attempts"),
    [
        ([chat("echo:unsure"), UNSURE_FIRST | {"max_tokens": AFTER}, UNSURE_FIRST | SHOWN], 3),
        ([UNSURE_FIRST], 2),
    ],
    ids=["it has no more tokens, or its client wants log probabilities", "one attempt is left"],
)
async def test_an_answer_is_judged_whole_and_kept_for_want_of_another(
    early: Callable[..., Settings], store: redis.Redis, bodies: list[Body], max_attempts: int
) -> None:
    lower = early(queue__max_attempts=max_attempts)
    upper = early(queue__max_attempts=max_attempts, echo__fault_ratio=1, worker__fault_ratio=1)
    with Producer(lower) as producer:
        async with running(int4=lower, int8=upper):
            await warmed_up(producer)
            outcomes = [await outcome_of(producer, body) for body in bodies]

    seen = [(outcome.state, outcome.tier, outcome.attempts, outcome.confidence) for outcome in outcomes]
    assert seen == [("finished", "int4", 1, 0.1)] * len(bodies)


@pytest.mark.parametrize(
    ("higher", "headers", "end"),
    [
        ({"echo__fault_ratio": 1, "worker__fault_ratio": 1}, {}, ("failed", "engine_fault", 3)),
        ({"echo__ttft_ms": 60_000}, {"x_deadline_ms": "3000"}, ("expired", "deadline_exceeded", 2)),
    ],
    ids=["its engine breaks", "it is too slow"],
)
async def test_what_was_handed_over_early_ends_as_any_other_job_of_the_higher_tier(
    early: Callable[..., Settings],
    store: redis.Redis,
    higher: dict[str, float],
    headers: dict[str, str],
    end: tuple[str, str, int],
) -> None:
    lower, upper = early(), early(**higher)
    with Producer(lower) as producer:
        async with running(int4=lower, int8=upper):
            await warmed_up(producer)
            outcome = await outcome_of(producer, UNSURE_FIRST | {"max_tokens": 44}, **headers)

    assert (outcome.state, outcome.code, outcome.attempts) == end


async def test_an_answer_goes_on_where_the_higher_tier_would_not_have_the_time(
    early: Callable[..., Settings], store: redis.Redis
) -> None:
    slow = early(echo__tokens_per_s=40)
    with Producer(slow) as producer:
        async with running(int4=slow, int8=early()):
            await warmed_up(producer)
            outcome = await outcome_of(producer, UNSURE_FIRST | {"max_tokens": 44}, x_deadline_ms="2000")

    assert (outcome.state, outcome.tier, outcome.attempts, outcome.confidence) == ("finished", "int4", 1, 0.1)


@pytest.mark.long
def test_a_job_whose_higher_tier_s_worker_is_killed_is_tried_there_again_unless_it_is_cancelled(
    make_stack: Callable[..., Stack], calibration: str
) -> None:
    stack = make_stack(BITLADDER_CASCADE__CALIBRATION=calibration, BITLADDER_QUEUE__LEASE_S="1")
    stack.intake()
    stack.worker("int4")
    stack.environment["BITLADDER_ECHO__TTFT_MS"] = "60000"
    killed = stack.worker("int8")
    with Client(stack.url) as client:
        client.wait(client.submit(chat("word"), cascade=True)["id"], timeout_s=20)
        ids = [client.submit(UNSURE_FIRST, cascade=True)["id"] for _ in range(2)]
        wait_until(
            lambda: all("int8" in (client.result(job_id)["worker"] or "") for job_id in ids), "both are handed over"
        )
        client.cancel(ids[0])
        killed.send_signal(signal.SIGKILL)
        stack.environment["BITLADDER_ECHO__TTFT_MS"] = "1"
        stack.start("worker", "--tier", "int8")
        cancelled, retried = (client.wait(job_id, timeout_s=20) for job_id in ids)

    assert (cancelled["status"], cancelled["result"]) == ("cancelled", None)
    assert (retried["status"], retried["tier"], retried["attempts"]) == ("finished", "int8", 3)


HEAD = {"id": "x", "object": "text_completion", "model": "smollm2"}
LOGPROBS = {"tokens": ["a"], "top_logprobs": [{"a": -0.1, "b": -2.0}]}
USAGE = {"prompt_tokens": 1, "total_tokens": 7, "completion_tokens": 6}


def whole(text: str) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length", "stop_reason": None, "ids": None}
    return HEAD | {"choices": [choice], "service_tier": None, "usage": USAGE | {"details": None}, "more": []}


def chunks(text: str, usage: dict[str, Any] | None) -> list[bytes]:
    choices = [{"index": 0, "text": letter, "logprobs": LOGPROBS, "finish_reason": None} for letter in text]
    choices[-1]["finish_reason"] = "length"
    events = [event(HEAD | {"choices": [choice | {"stop_reason": None}]}) for choice in choices]
    return stream(*events, *([event(HEAD | {"choices": [], "usage": usage})] if usage else []), DONE)


@pytest.mark.parametrize("usage", [USAGE, None], ids=["a whole stream", "a stream without token counts"])
async def test_an_answer_that_was_read_as_a_stream_is_the_one_that_the_engine_gives_whole(
    early: Callable[..., Settings], store: redis.Redis, usage: dict[str, Any] | None
) -> None:
    settings = early(worker__check_output=False)
    body: Body = {"model": "smollm2", "prompt": "x", "max_tokens": 6}
    async with scripted() as script:
        script.say(reply(whole("abcdef")))
        pumps = [
            Pump(settings, "smollm2", "int4", HttpEngine(script.url, "smollm2")),
            Pump(settings, "smollm2", "int8", EchoEngine(settings.echo, "int8")),
        ]
        tasks = [asyncio.create_task(pump.run()) for pump in pumps]
        with Producer(settings) as producer:
            await until(lambda: all(pump.leases.is_ready for pump in pumps))
            first = await outcome_of(producer, body)
            script.say(chunks("abcdef", usage), reply(whole("abcdef")))
            second = await outcome_of(producer, body)
        for pump in pumps:
            pump.drain()
        await asyncio.gather(*tasks)

    texts = [msgspec.json.encode(msgspec.json.decode(outcome.answer or b"")) for outcome in (first, second)]
    assert texts == [msgspec.json.encode(whole("abcdef"))] * 2  # the order of its fields, too
    assert second.usage.completion_tokens == 6
    assert [asked.get("stream", False) for asked in script.asked[-2:]] == ([False, True] if usage else [True, False])
