"""A client that reads a job's tokens at /stream, is cut off again and again, and reads on by Last-Event-ID."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from tests.chaos.traffic.history import History
from tests.chaos.traffic.orders import Order
from tests.chaos.traffic.reading import Reading, events_in

# How long a job is followed at most.
FOLLOW_S = 120.0
MAX_EVENTS = 40  # before the connection is cut on purpose
# Without an event for so long the client asks again, as browsers do behind a proxy that fell silent.
SILENCE_S = 20.0


async def follow(
    session: aiohttp.ClientSession, urls: list[str], job_id: str, order: Order, history: History, rng: random.Random
) -> None:
    """Read until the job is over, by way of any intake, and note what came."""
    reading, end = Reading(order, "events"), time.monotonic() + FOLLOW_S
    while not reading.is_over and time.monotonic() < end:
        most = rng.randint(1, MAX_EVENTS) if rng.random() < 0.7 else None
        try:
            if not await read_on(session, rng.choice(urls), job_id, reading, most):
                history.did_not_find(job_id, "events")
                break
        except (aiohttp.ClientError, TimeoutError):
            history.did("events broken")
        await asyncio.sleep(rng.uniform(0, 0.3))
    history.did("events followed")
    history.did("events begun anew", reading.restarts)
    history.take(reading.found, reading.went_back)
    history.read_to_end(job_id, "events", reading.outcome, reading.gone)


async def read_on(
    session: aiohttp.ClientSession, url: str, job_id: str, reading: Reading, most: int | None = None
) -> bool:
    """Read behind what was read already, at most so many events; False where the intake does not know the job."""
    headers = {"Last-Event-ID": reading.last_id} if reading.last_id else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S, connect=5)
    async with session.get(f"{url}/v1/jobs/{job_id}/stream", headers=headers, timeout=timeout) as answer:
        if answer.status in (404, 410):
            return False
        if answer.status != 200:
            await asyncio.sleep(0.5)
            return True
        count = 0
        async for event_id, data in _events(answer):
            if data == b"[DONE]":
                reading.done()
                return True
            event = msgspec.json.decode(data)
            reading.take(event, event_id)
            if "error" in event:
                return True
            count += 1
            if count == most:
                answer.close()
                return True
    return True


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
    lines: list[bytes] = []
    async for line in answer.content:
        if line.rstrip(b"\r\n"):
            lines.append(line.rstrip(b"\r\n"))
            continue
        event_id, data = events_in(lines)
        lines = []
        if data:
            yield event_id, data
