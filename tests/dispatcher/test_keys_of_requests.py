"""dispatcher/idempotency.py: a POST that makes something else than a job makes it once for a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest_asyncio
from starlette.requests import Request

from bitladder.errors import RequestError
from bitladder.settings.sections import Settings
from dispatcher.app import create_app
from dispatcher.auth import Requirement, require
from dispatcher.http.responses import Response, json_response
from dispatcher.idempotency import once
from dispatcher.state import intake_state
from tests.conftest import make_settings


class Things:
    """An intake with a route that makes things, and the client that asks for them."""

    def __init__(self, redis_url: str) -> None:
        self.made, self.is_made, self.opened = 0, asyncio.Event(), asyncio.Event()
        self.app = create_app(make_settings(redis_url))
        self.app.router.routes.append(require(Requirement.SUBMIT, "POST", "/v1/things", self.post))
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.app), base_url="http://intake")

    async def post(self, request: Request) -> Response:
        body = await request.body()
        return await once(request, intake_state(request), body, lambda: self.make(body))

    async def make(self, body: bytes) -> Response:
        if body == b"wait":
            self.is_made.set()
            await self.opened.wait()
        if body == b"wrong":
            raise RequestError("the body is wrong")
        self.made += 1
        return json_response({"id": self.made}, 201, {"Location": f"/v1/things/{self.made}"})

    async def ask(self, body: str, key: str = "k") -> httpx2.Response:
        return await self.http.post("/v1/things", content=body, headers={"Idempotency-Key": key} if key else {})


@pytest_asyncio.fixture
async def things(redis_url: str, settings: Settings) -> AsyncIterator[Things]:
    del settings  # it empties Redis
    things = Things(redis_url)
    async with things.app.router.lifespan_context(things.app), things.http:
        yield things


async def test_a_key_makes_one_thing_and_a_repeat_gets_the_same_answer(things: Things) -> None:
    answers = [await things.ask("a"), await things.ask("a"), await things.ask("b"), await things.ask("a", "l")]

    assert [answer.status_code for answer in answers] == [201, 201, 422, 201]
    assert [answer.text for answer in answers[:2]] == ['{"id":1}'] * 2
    assert answers[1].headers["location"] == "/v1/things/1"
    assert answers[3].json() == {"id": 2}
    assert [(await things.ask("a", "")).json()["id"] for _ in range(2)] == [3, 4]


async def test_a_repeat_while_the_first_runs_is_told_to_come_back(things: Things) -> None:
    first = asyncio.create_task(things.ask("wait"))
    await things.is_made.wait()
    repeat = await things.ask("wait")
    things.opened.set()

    assert repeat.json()["error"]["code"] == "idempotency_key_in_use"
    assert (repeat.headers["retry-after"], repeat.headers["x-should-retry"]) == ("1", "true")
    assert (await first).text == (await things.ask("wait")).text == '{"id":1}'


async def test_an_error_is_not_kept(things: Things) -> None:
    assert [(await things.ask(body)).status_code for body in ("wrong", "wrong", "right")] == [400, 400, 201]
