"""dispatcher/client.py: the asyncio client; the blocking one is used by every other test here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dispatcher.client import AsyncClient, Client, JobError
from tests.conftest import Stack

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    return stack


async def test_many_jobs_are_submitted_and_awaited_at_once(stack: Stack) -> None:
    async with AsyncClient(stack.url) as client:
        jobs = await asyncio.gather(*(client.submit(BODY | {"prompt": f"p{number}"}) for number in range(50)))
        done = await asyncio.gather(*(client.wait(job["id"], timeout_s=20) for job in jobs))

    assert [job["result"]["choices"][0]["text"].split()[0] for job in done] == [f"p{number}" for number in range(50)]


async def test_a_job_is_cancelled_and_a_refusal_is_an_error_with_its_status(stack: Stack) -> None:
    async with AsyncClient(stack.url) as client:
        job = await client.submit(BODY | {"max_tokens": 50_000})
        await client.cancel(job["id"])
        over = await client.wait(job["id"], timeout_s=10)
        with pytest.raises(JobError, match="X-Priority") as refused:
            await client.submit(BODY, priority=99)

    assert over["status"] == "cancelled"
    assert refused.value.status == 400


def test_submit_many_and_an_idempotency_key(stack: Stack) -> None:
    with Client(stack.url) as client:
        many = client.submit_many([BODY, BODY])
        once, again = (client.submit(BODY, idempotency_key="k") for _ in range(2))

    assert many[0]["id"] != many[1]["id"]
    assert once["id"] == again["id"]


def test_an_unknown_option_is_refused_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="prority"):
        client.submit(BODY, prority=3)
