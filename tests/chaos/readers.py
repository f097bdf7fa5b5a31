"""How an outcome reads, wherever it is read."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp
import msgspec
import redis
from redis.exceptions import RedisError

from dispatcher.contract import Outcome, decode_outcome
from tests.chaos.history import TERMINAL, History, Record, Seen

# What a job hash says of itself.
FIELDS = ("status", "outcome", "fence", "uncharged", "data")


def seen_of(by: str, outcome: Outcome) -> Seen:
    """Return an outcome as the queue stores and publishes it."""
    text = outcome.text
    if outcome.state == "finished" and text is None:
        text = text_of(msgspec.json.decode(outcome.body))
    return Seen(
        by=by, state=outcome.state, text=text, tier=outcome.tier, attempts=outcome.attempts or None, code=outcome.code
    )


def text_of(answer: dict[str, Any]) -> str:
    """Return the text of an OpenAI answer."""
    choice = answer["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def seen_in_job(by: str, job: dict[str, Any]) -> Seen | None:
    """Return the outcome that GET /v1/jobs/{id} shows; None while the job is not over."""
    if job["status"] not in TERMINAL:
        return None
    text = job.get("text")
    if job["status"] == "finished" and text is None:
        text = text_of(job["result"])
    error = job.get("error") or {}
    attempts = job["attempts"] if job["status"] in ("finished", "failed") else None
    return Seen(by=by, state=job["status"], text=text, tier=job.get("tier"), attempts=attempts, code=error.get("code"))


async def read_job(session: aiohttp.ClientSession, url: str, job_id: str, history: History) -> bool:
    """Read a job through one intake; False when it is not over, or nobody answered."""
    try:
        async with session.get(f"{url}/v1/jobs/{job_id}", timeout=aiohttp.ClientTimeout(total=10)) as answer:
            if answer.status != 200:
                if answer.status in (404, 410):
                    history.did_not_find(job_id, url)
                return False
            seen = seen_in_job(url, await answer.json())
    except (aiohttp.ClientError, TimeoutError):
        return False
    if seen is not None:
        history.saw(job_id, seen)
    return seen is not None


async def read_at_random(session: aiohttp.ClientSession, urls: list[str], history: History, pause_s: float) -> None:
    """Look again and again at jobs that were accepted some time, until cancelled."""
    while True:
        ids = history.accepted_ids()
        if ids:
            await read_job(session, random.choice(urls), random.choice(ids[-400:]), history)
        await asyncio.sleep(pause_s)


def watch_published(store: redis.Redis, history: History) -> None:
    """Note every outcome that is published, straight at the server, until the client is closed."""
    while True:
        try:
            with store.pubsub(ignore_subscribe_messages=True) as messages:  # type: ignore[no-untyped-call]  # redis-py
                messages.psubscribe("bl:done:*")
                for message in messages.listen():
                    job_id = message["channel"].decode().removeprefix("bl:done:")
                    history.saw(job_id, seen_of("published", decode_outcome(message["data"])))
        except (RedisError, OSError, ValueError):
            if history.is_closed.wait(0.05):
                return


def records(store: redis.Redis) -> dict[str, Record]:
    """Return every job that Redis holds."""
    found = {}
    for key in store.scan_iter("rq:job:*", count=1000):
        job_id = key.decode().removeprefix("rq:job:")
        values: Any = store.hmget(key, list(FIELDS))
        status, outcome, fence, uncharged, data = values
        found[job_id] = Record(
            job_id=job_id,
            status=status.decode(),
            outcome=seen_of("redis", decode_outcome(outcome)) if outcome else None,
            fence=int(fence or 0),
            uncharged=int(uncharged or 0),
            content=(outcome or b"") + (data or b""),
        )
    return found
