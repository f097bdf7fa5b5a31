"""A client that disconnects: `unless_gone` in dispatcher/openai/awaiting.py, `EventStream` in dispatcher/http."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
from starlette.requests import Request
from starlette.types import Message

from bitladder.settings.sections import Settings
from dispatcher.app import create_app
from dispatcher.openai.awaiting import unless_gone
from tests.conftest import make_settings, wait_until

STREAM = json.dumps({"model": "smollm2", "prompt": "aa", "stream": True}).encode()
HEADERS = [(b"content-type", b"application/json")]


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


class FullConnection:
    """A server's end of a connection whose client reads nothing, and leaves while this part of an answer is sent."""

    def __init__(self, part: str) -> None:
        self._part, self._is_body_read, self._left = part, False, asyncio.Event()
        self.job_id = ""

    async def receive(self) -> Message:
        if not self._is_body_read:
            self._is_body_read = True
            return {"type": "http.request", "body": STREAM, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.job_id = dict(message["headers"])[b"x-job-id"].decode()
        if message["type"] == self._part:
            self._left.set()
            await asyncio.Event().wait()  # no room


@pytest.mark.parametrize("part", ["http.response.start", "http.response.body"])
async def test_a_client_that_leaves_while_a_part_of_its_stream_is_sent_leaves_no_job(
    part: str, redis_url: str, store: redis.Redis, settings: Settings
) -> None:
    del settings
    connection = FullConnection(part)
    app = create_app(make_settings(redis_url, intake__heartbeat_s=0.05))
    request = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": HEADERS, "query_string": b""}
    async with app.router.lifespan_context(app), asyncio.timeout(10):
        await app(request | {"asgi": {"spec_version": "2.3"}}, connection.receive, connection.send)

        def is_cancelled() -> bool:
            return store.hget(f"rq:job:{connection.job_id}", "status") == b"canceled"

        await asyncio.to_thread(wait_until, is_cancelled, "it is cancelled", 5)
