"""A running stack is asked in the batch lane, at exactly one tier, whatever happens to its intake meanwhile."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from calibration.control.asking.askers import StackOptions, running_stack
from calibration.control.asking.batch_requests import KeptBytes
from calibration.errors import EngineFailedError, InputError
from tests.conftest import Stack

pytestmark = pytest.mark.stack
TOP = 20


async def test_a_tier_is_asked_in_the_batch_lane_and_no_other_tier_answers(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_ECHO__TTFT_MS="0", BITLADDER_ECHO__TOKENS_PER_S="100000")
    stack.intake()
    for tier in ("int4", "int8"):
        stack.worker(tier)
    async with running_stack(StackOptions(stack.url, tag="test")) as running, running.asking("int8") as asker:
        prompt = await asker.tokenize(" ".join(f"w{number}" for number in range(600)), as_prompt=True)
        written = await asker.write(prompt, 8, [], TOP)
        rows = await asker.distributions([*prompt, *written.tokens], TOP)  # 800 KB pass intake, Redis and outcome
        with pytest.raises(EngineFailedError, match="cannot be greater than max_model_len"):
            await asker.answer(prompt, 10**6)
    jobs = stack.http.get("/v1/jobs", params={"tag": "test", "limit": 100}).json()["data"]

    assert running.tiers == ("int4", "int8", "fp8")
    assert len(prompt) == 600
    assert len(written.tokens) == len(written.predictions.actual) == 8
    assert rows.ids.shape == (607, TOP)
    assert (rows.ids[-8:] == written.predictions.ids).all()
    assert [(job["tier"], job["floor"], job["lane"]) for job in jobs] == [("int8", "int8", "batch")] * 4
    assert running.spent().jobs == 4
    assert running.spent().bytes > 500_000


async def test_an_intake_that_is_gone_for_a_while_is_waited_for(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    async with running_stack(StackOptions(stack.url)) as running, running.asking("int4") as asker:
        asked = asyncio.create_task(asker.answer([1, 2, 3], 2))
        await asyncio.to_thread(_until_waiting, stack)
        stack.processes[0].send_signal(signal.SIGKILL)
        stack.processes[0].wait()
        await asyncio.to_thread(stack.intake)
        await asyncio.to_thread(stack.worker, "int4")

        assert len(await asked) == 2


async def test_a_request_that_is_called_off_while_it_is_submitted_leaves_no_job(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.intake()
    async with running_stack(StackOptions(stack.url, tag="test")) as running, running.asking("int4") as asker:
        intake = stack.processes[0]
        intake.send_signal(signal.SIGSTOP)
        asked = asyncio.create_task(asker.answer([1, 2, 3], 2))
        await asyncio.sleep(0.1)  # it is written to a socket that nobody reads
        asked.cancel()
        await asyncio.sleep(0)
        intake.send_signal(signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await asked
    jobs = stack.http.get("/v1/jobs", params={"tag": "test"}).json()["data"]

    assert [job["state"] for job in jobs] == ["cancelled"]


async def test_what_cannot_be_asked_is_named(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    with pytest.raises(InputError, match="--model must be one of smollm2, got 'other'"):
        async with running_stack(StackOptions(stack.url, model="other")):
            pass
    with pytest.raises(EngineFailedError, match=r"no intake answers at [^ ]+:\d+ "):
        async with running_stack(StackOptions("http://127.0.0.1:9")):
            pass


async def test_no_more_bytes_are_left_in_redis_than_the_limit() -> None:
    kept, started_s = KeptBytes(250, seconds=0.3), time.monotonic()
    for _ in range(2):
        await kept.room()
        kept.add(100)
    before_s = time.monotonic() - started_s
    await kept.room()  # for a third there is room once the first is forgotten
    kept.add(100)

    assert before_s < 0.2
    assert time.monotonic() - started_s >= 0.3


def _until_waiting(stack: Stack) -> None:
    while stack.http.get("/v1/queues").json()["data"][0]["tiers"][0]["depth"] < 1:
        time.sleep(0.02)
