"""Clients over HTTP: they await, stream, follow, or submit and look later; they retry with their key, or give up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from tests.chaos.traffic.following import follow
from tests.chaos.traffic.history import History, Seen, Told, Try
from tests.chaos.traffic.orders import Delivery, Order
from tests.chaos.traffic.readers import read_job, text_of
from tests.chaos.traffic.reading import STATES, Reading

# How long a client with an idempotency key tries: beyond every outage.
TRYING_S = 60.0
TRYING_LATE_S = 5.0  # the same where the answer is worth nothing after some seconds
THINK_S = 0.5
# How long one answer is waited for: a queue, an outage, a lease and a job that runs again.
CLIENT_TIMEOUT_S = 80.0
SHORT = aiohttp.ClientTimeout(total=10)
# Errors that are no outcome of the job: it goes on, or another request has it.
NO_OUTCOME = ("await_timeout", "stream_already_requested", "client_closed_request", "intake_closing", "job_lost")
# Errors that leave open whether the job was accepted.
OPEN = ("acceptance_unknown",)


class HttpClients:
    """Many clients, all of one process, each with one order at a time."""

    def __init__(self, urls: list[str], history: History, rng: random.Random) -> None:
        self._urls, self._history, self._rng = urls, history, rng

    async def work(self, session: aiohttp.ClientSession, orders: Iterator[Order]) -> None:
        """Carry out orders until there are no more."""
        for order in orders:
            if not order.is_long:
                await asyncio.sleep(self._rng.uniform(0, 2 * THINK_S))
                await self._history.opened()
            await self._carry_out(session, order, self._history.begin(order))

    async def _carry_out(self, session: aiohttp.ClientSession, order: Order, told: Told) -> None:
        end = time.monotonic() + (TRYING_S if not order.has_deadline else TRYING_LATE_S)
        while True:
            sent_s, url = time.time(), self._rng.choice(self._urls)
            try:
                its = await self._once(session, url, order, told)
            except (aiohttp.ClientError, TimeoutError) as error:
                its = Try(sent_s=sent_s, heard_s=time.time(), answer=type(error).__name__, is_unknown=True)
                # Nobody knows whether it was accepted; if it was, the intake cancels what nobody awaits.
                told.may_be_cancelled |= order.delivery in (Delivery.AWAITED, Delivery.STREAMED) and not order.key
                if isinstance(error, TimeoutError) and order.delivery in (Delivery.AWAITED, Delivery.STREAMED):
                    told.gave_up.append((url, its.heard_s))
                elif isinstance(error, TimeoutError):
                    told.unanswered.append((url, sent_s, its.heard_s))
            self._history.tried(order, its)
            if its.answer in ("accepted", "refused") or not order.key or time.monotonic() > end:
                return
            await asyncio.sleep(self._rng.uniform(0.1, 0.6))
            await self._history.opened()

    async def _once(self, session: aiohttp.ClientSession, url: str, order: Order, told: Told) -> Try:
        if order.delivery in (Delivery.JOBS, Delivery.EVENTS):
            return await self._submit(session, url, order, told)
        path = "/v1/chat/completions" if order.is_chat else "/v1/completions"
        sent_s, timeout = time.time(), aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        headers = order.headers | ({"Prefer": "wait"} if order.key else {})  # a repeat waits for the first try's job
        async with session.post(f"{url}{path}", json=order.body, headers=headers, timeout=timeout) as answer:
            job_id = answer.headers.get("X-Job-Id", "")
            if answer.status == 200 and order.delivery is Delivery.STREAMED:
                self._history.accepted(order, job_id, sent_s)
                told.may_be_cancelled |= not order.key  # should the stream break, its job is not wanted any more
                await self._read_stream(answer, order, job_id)
                return _tried(sent_s)
            content = await answer.json()
        if answer.status != 200 and (its := _refusal(sent_s, answer, content)):
            told.may_be_cancelled |= its.is_unknown and not order.key  # nobody can come back for it
            return its
        self._history.accepted(order, job_id, sent_s)
        self._note(url, answer, content, job_id)
        if content.get("error", {}).get("code") == "job_lost":
            told.gone.append((sent_s, time.time()))
        return _tried(sent_s)

    async def _submit(self, session: aiohttp.ClientSession, url: str, order: Order, told: Told) -> Try:
        sent_s = time.time()
        async with session.post(f"{url}/v1/jobs", json=order.body, headers=order.headers, timeout=SHORT) as answer:
            content = await answer.json()
        if answer.status != 202:
            its = _refusal(sent_s, answer, content) or _tried(sent_s, f"{answer.status} {content['error']['code']}")
            told.may_be_cancelled |= its.is_unknown and not order.key
            return its
        self._history.accepted(order, content["id"], sent_s)
        if order.is_cancelled:
            await self._cancel(session, url, content["id"], told)
        if order.delivery is Delivery.EVENTS:
            await follow(session, self._urls, content["id"], order, self._history, self._rng)
        else:
            await read_job(session, self._rng.choice(self._urls), content["id"], self._history)
        return _tried(sent_s)

    async def _cancel(self, session: aiohttp.ClientSession, url: str, job_id: str, told: Told) -> None:
        told.may_be_cancelled = True
        await asyncio.sleep(self._rng.uniform(0, 0.5))
        async with session.delete(f"{url}/v1/jobs/{job_id}", timeout=SHORT) as answer:
            if answer.status == 200 and (await answer.json())["cancellation"] == "cancelled":
                told.cancelled_s = time.time()

    def _note(self, url: str, answer: aiohttp.ClientResponse, content: dict[str, Any], job_id: str) -> None:
        """Take an awaited answer for what it says about the job."""
        tier = answer.headers.get("X-Tier")
        if answer.status == 200:
            self._history.saw(job_id, Seen(by=url, state="finished", text=text_of(content), tier=tier))
            return
        code = content["error"]["code"]
        if code not in NO_OUTCOME:
            self._history.saw(job_id, Seen(by=url, state=STATES.get(code, "failed"), tier=tier, code=code))

    async def _read_stream(self, answer: aiohttp.ClientResponse, order: Order, job_id: str) -> None:
        reading = Reading(order, "stream")
        async for line in answer.content:
            if line == b"data: [DONE]\n":
                reading.done()
            elif line.startswith(b"data: "):
                reading.take(msgspec.json.decode(line[6:]))
        self._history.did("streams read")
        self._history.take(reading.found, reading.went_back)
        self._history.read_to_end(job_id, "stream", reading.outcome, reading.gone)


def _tried(sent_s: float, answer: str = "accepted") -> Try:
    return Try(sent_s=sent_s, heard_s=time.time(), answer=answer)


def _refusal(sent_s: float, answer: aiohttp.ClientResponse, content: dict[str, Any]) -> Try | None:
    """Take an answer for what it says: that nothing was accepted, or that this is not known; None: there is a job."""
    code = content["error"]["code"]
    if "X-Job-Id" in answer.headers and code not in OPEN:
        return None
    is_open = code in OPEN or answer.status == 500
    is_final = 400 <= answer.status < 500 and answer.status != 429
    return Try(
        sent_s=sent_s,
        heard_s=time.time(),
        answer="refused" if is_final else f"{answer.status} {code}",
        is_refusal=not is_open,
        is_unknown=is_open,
    )
