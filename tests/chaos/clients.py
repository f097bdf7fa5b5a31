"""Clients over HTTP: they await, stream, or submit and look later; they retry with their key, and some give up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from tests.chaos.history import History, Seen, Told
from tests.chaos.orders import Door, Order
from tests.chaos.readers import read_job, text_of

# How often a client with an idempotency key tries before it gives up.
TRIES = 40
THINK_S = 0.5
PATIENCE = aiohttp.ClientTimeout(total=30)
# Errors that are no outcome of the job: it goes on, or another request has it.
NO_OUTCOME = ("await_timeout", "intake_closing", "stream_already_requested", "client_closed_request")
STATES = {"cancelled": "cancelled", "deadline_exceeded": "expired"}


class HttpClients:
    """Many clients, all of one process, each with one order at a time."""

    def __init__(self, urls: list[str], history: History, rng: random.Random) -> None:
        self._urls, self._history, self._rng = urls, history, rng

    async def work(self, session: aiohttp.ClientSession, orders: Iterator[Order]) -> None:
        """Carry out orders until there are no more."""
        for order in orders:
            await asyncio.sleep(self._rng.uniform(0, 2 * THINK_S))
            await self._carry_out(session, order, self._history.begin(order))

    async def _carry_out(self, session: aiohttp.ClientSession, order: Order, told: Told) -> None:
        for _ in range(TRIES if order.key else 1):
            try:
                kind = await self._once(session, self._rng.choice(self._urls), order, told)
            except (aiohttp.ClientError, TimeoutError) as error:
                kind = type(error).__name__
                # Nobody knows whether it was accepted; if it was, the intake cancels what nobody awaits.
                told.may_be_cancelled |= order.door is not Door.JOBS and not order.key
            self._history.answered(order, kind)
            if kind in ("accepted", "refused"):
                return
            await asyncio.sleep(self._rng.uniform(0.1, 0.6))

    async def _once(self, session: aiohttp.ClientSession, url: str, order: Order, told: Told) -> str:
        if order.door is Door.JOBS:
            return await self._submit(session, url, order, told)
        path = "/v1/chat/completions" if order.is_chat else "/v1/completions"
        async with session.post(f"{url}{path}", json=order.body, headers=order.headers, timeout=PATIENCE) as answer:
            if job_id := answer.headers.get("X-Job-Id"):
                self._history.accepted(order, job_id)
            if answer.status == 200 and order.door is Door.STREAMED:
                told.may_be_cancelled |= not order.key  # should the stream break, its job is not wanted any more
                return await self._read_stream(answer, job_id or "")
            return self._note(url, answer, await answer.json(), job_id)

    async def _submit(self, session: aiohttp.ClientSession, url: str, order: Order, told: Told) -> str:
        async with session.post(f"{url}/v1/jobs", json=order.body, headers=order.headers, timeout=PATIENCE) as answer:
            content = await answer.json()
        if answer.status != 202:
            return _refusal(answer.status)
        self._history.accepted(order, content["id"])
        if order.is_cancelled:
            told.may_be_cancelled = True
            await asyncio.sleep(self._rng.uniform(0, 0.5))
            async with session.delete(f"{url}/v1/jobs/{content['id']}", timeout=PATIENCE):
                pass
        await read_job(session, self._rng.choice(self._urls), content["id"], self._history)
        return "accepted"

    def _note(self, url: str, answer: aiohttp.ClientResponse, content: dict[str, Any], job_id: str | None) -> str:
        """Take an awaited answer for what it says about the job."""
        if job_id is None:
            return _refusal(answer.status)
        tier = answer.headers.get("X-Tier")
        if answer.status == 200:
            seen = Seen(by=url, state="finished", text=text_of(content), tier=tier)
        else:
            code = content["error"]["code"]
            if code in NO_OUTCOME:
                return "accepted"
            seen = Seen(by=url, state=STATES.get(code, "failed"), tier=tier, code=code)
        self._history.saw(job_id, seen)
        return "accepted"

    async def _read_stream(self, answer: aiohttp.ClientResponse, job_id: str) -> str:
        text = ""
        async for line in answer.content:
            if line == b"data: [DONE]\n":
                self._history.saw(job_id, Seen(by="stream", state="finished", text=text.rstrip()))
            elif line.startswith(b"data: "):
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    break
                choice = event["choices"][0]
                text += choice["delta"]["content"] if "delta" in choice else choice["text"]
        return "accepted"


def _refusal(status: int) -> str:
    return "refused" if 400 <= status < 500 and status != 429 else str(status)
