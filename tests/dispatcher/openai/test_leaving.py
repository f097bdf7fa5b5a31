"""A client that disconnects: dispatcher/openai/awaiting.py, `unless_gone`."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from dispatcher.openai.awaiting import unless_gone


class Connection:
    """A request whose client leaves when the test says so."""

    def __init__(self) -> None:
        self.is_gone = asyncio.Event()
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> Message:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}


async def _answer(answer: asyncio.Future[str]) -> str:
    return await answer


@pytest.mark.parametrize("steps", range(6))
async def test_a_client_that_leaves_as_its_answer_comes_interrupts_nothing_behind_the_wait(steps: int) -> None:
    connection, answer = Connection(), asyncio.get_running_loop().create_future()
    behind = asyncio.Event()

    async def handler() -> object:
        result = await unless_gone(connection.request, _answer(answer))
        for _ in range(10):
            await asyncio.sleep(0)  # sending takes turns of the loop
        behind.set()
        return result

    task = asyncio.create_task(handler())
    await asyncio.sleep(0.01)
    connection.is_gone.set()
    for _ in range(steps):  # the two meet in one of these turns
        await asyncio.sleep(0)
    if not answer.done():
        answer.set_result("answered")

    assert await task in ("answered", None)
    assert behind.is_set()


async def test_a_client_that_leaves_before_its_answer_ends_the_wait() -> None:
    connection = Connection()
    task = asyncio.create_task(unless_gone(connection.request, asyncio.sleep(10, "answered")))
    await asyncio.sleep(0.01)

    connection.is_gone.set()

    async with asyncio.timeout(1):
        assert await task is None
