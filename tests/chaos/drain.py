"""After the last fault: every job ends, is read through every intake, and no lease of the dead is left."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from tests.chaos.system.scene import TIERS, Scene
from tests.chaos.traffic.following import read_on
from tests.chaos.traffic.history import History
from tests.chaos.traffic.orders import Delivery
from tests.chaos.traffic.readers import read_job
from tests.chaos.traffic.reading import Reading

# Leases run out, lost jobs run again, and every outcome is read. What was lost twice runs alone: a worker with some ten
# long ones of them needs minutes.
DRAIN_S = 360.0
READS_AT_ONCE = 96
# Streams that are read once more, whole.
MAX_READ_AGAIN = 1000


async def drain(its: Scene, history: History) -> list[str]:
    """Read every accepted job through every intake until it is over; return what is not over in time."""
    end = time.monotonic() + DRAIN_S
    left = await _read_all(its, history, end)
    found = [f"SLOW: {len(left)} reads found no outcome {DRAIN_S:g} s after the last fault: {left[:5]}"] if left else []
    await _read_streams_again(its, history)
    while (its.store.keys("bl:inflight:*") or its.store.zcard("bl:workers") > len(TIERS)) and time.monotonic() < end:
        await asyncio.sleep(0.1)  # jobs nobody knows of, and the leases of who was killed last
    return found


async def _read_all(its: Scene, history: History, end: float) -> list[tuple[str, str]]:
    left = [(job_id, url) for job_id in history.accepted_ids() for url in its.urls]
    while left and time.monotonic() < end:
        are_over = []
        for at in range(0, len(left), READS_AT_ONCE):
            reads = (read_job(its.session, url, job_id, history) for job_id, url in left[at : at + READS_AT_ONCE])
            are_over += await asyncio.gather(*reads)
        left = [pair for pair, is_over in zip(left, are_over, strict=True) if not is_over]
        await asyncio.sleep(0.2 if left else 0)
    return left


async def _read_streams_again(its: Scene, history: History) -> None:
    """Read finished streams from the start, at once and by way of one intake each."""
    streamed = [
        (job_id, Reading(told.order, "events, at the end"))
        for told in history.told.values()
        if told.order.delivery in (Delivery.STREAMED, Delivery.EVENTS)
        for job_id in told.ids
        if any(seen.state == "finished" for seen in history.seen[job_id])
    ][-MAX_READ_AGAIN:]
    for at in range(0, len(streamed), READS_AT_ONCE):
        some = streamed[at : at + READS_AT_ONCE]
        await asyncio.gather(*(_read_again(its, history, *one) for one in some))


async def _read_again(its: Scene, history: History, job_id: str, reading: Reading) -> None:
    try:
        if not await read_on(its.session, its.urls[len(job_id) % len(its.urls)], job_id, reading):
            history.did_not_find(job_id, "events, at the end")
            return
    except (aiohttp.ClientError, TimeoutError) as error:
        history.find(f"UNREAD: the events of job {job_id} cannot be read at the end: {error!r}")
    history.did("streams read again")
    history.take(reading.found, reading.went_back)
    history.read_to_end(job_id, "events, at the end", reading.outcome, reading.gone)
    if not reading.is_over:
        history.find(f"HOLE: the events of job {job_id} have no end")
