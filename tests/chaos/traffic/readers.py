"""How an outcome reads, wherever it is read."""

from __future__ import annotations

import asyncio
import random
import re
from datetime import datetime
from typing import Any

import aiohttp
import msgspec
import redis
from redis.exceptions import RedisError
from rq.job import Job
from rq.serializers import JSONSerializer

from bitladder.contract import Outcome
from bitladder.queue.job_record import inflate
from bitladder.queue.signing import Signer
from tests.chaos.traffic.history import TERMINAL, History, Lost, Record, Seen

MARK = re.compile(rb"\bn[0-9]{7}\b")
# What a job hash says of itself.
FIELDS = (
    "status",
    "outcome",
    "fence",
    "uncharged",
    "unbegun",
    "data",
    "history",
    "worker_name",
    "created_at",
    "ended_at",
    "wait",
)


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
                return answer.status in (404, 410)
            seen = seen_in_job(url, await answer.json())
    except (aiohttp.ClientError, TimeoutError):
        return False
    if seen is not None:
        history.saw(job_id, seen)
    return seen is not None


async def read_at_random(session: aiohttp.ClientSession, urls: list[str], history: History, pause_s: float) -> None:
    """Look again and again at jobs that were accepted some time, until cancelled."""
    while True:
        ids = history.accepted_ids()[-400:]
        if ids:
            await read_job(session, random.choice(urls), random.choice(ids), history)
        await asyncio.sleep(pause_s)


def watch_published(store: redis.Redis, signer: Signer, history: History) -> None:
    """Note every outcome that is published, straight at the server, until the client is closed."""
    while True:
        try:
            with store.pubsub(ignore_subscribe_messages=True) as messages:  # type: ignore[no-untyped-call]  # redis-py
                messages.psubscribe("bl:done:*")
                for message in messages.listen():
                    job_id = message["channel"].decode().removeprefix("bl:done:")
                    history.saw(job_id, seen_of("published", signer.decode_stored(job_id, message["data"])))
        except (RedisError, OSError, ValueError):
            if history.is_closed.wait(0.05):
                return


def records(store: redis.Redis, signer: Signer) -> dict[str, Record]:
    """Return every job that Redis holds."""
    found, keys = {}, _by_key(store)
    for key in store.scan_iter("rq:job:*", count=1000):
        job_id = key.decode().removeprefix("rq:job:")
        values: Any = store.hmget(key, list(FIELDS))
        fields = dict(zip(FIELDS, values, strict=True))
        said = MARK.search((fields["outcome"] or b"") + inflate(fields["data"] or b"["))
        found[job_id] = _record(job_id, fields, signer, said[0].decode() if said else keys.get(job_id))
    return found


def _by_key(store: redis.Redis) -> dict[str, str]:
    """Return the idempotency keys of jobs that have one: a client's is the mark of its order."""
    names = list(store.scan_iter("bl:idem:*", count=1000))
    values: Any = store.mget(names) if names else []
    pairs = zip(names, values, strict=True)
    return {value.split()[0].decode(): name.decode().rpartition(":")[2] for name, value in pairs if value}


def _record(job_id: str, fields: dict[str, bytes | None], signer: Signer, mark: str | None) -> Record:
    stored = fields["outcome"]
    outcome = signer.decode_stored(job_id, stored) if stored else None
    deadline = (fields["wait"] or b"").split(b" ")[1:2]
    return Record(
        job_id=job_id,
        status=(fields["status"] or b"").decode(),
        outcome=seen_of("redis", outcome) if outcome else None,
        fence=int(fields["fence"] or 0),
        uncharged=int(fields["uncharged"] or 0),
        unbegun=int(fields["unbegun"] or 0),
        mark=mark,
        lost=tuple(map(_lost, (fields["history"] or b"").splitlines())),
        worker=(fields["worker_name"] or b"").decode(),
        created_s=_time(fields["created_at"]),
        ended_s=_time(fields["ended_at"]),
        floor=outcome.floor if outcome else None,
        deadline_s=int(deadline[0]) / 1000 if deadline and deadline[0] != b"-" else None,
    )


def _lost(line: bytes) -> Lost:
    """Read a line of a job's history; its outcome may have a signature before it."""
    at_ms, worker, fence, outcome = line.split(b" ", 3)
    last = msgspec.json.decode(outcome[outcome.index(b"{") :])
    return Lost(
        at_s=int(at_ms) / 1000,
        worker=worker.decode(),
        fence=int(fence),
        code=last["code"],
        attempts=last.get("attempts", 0),
    )


def _time(text: bytes | None) -> float:
    return datetime.fromisoformat(text.decode()).timestamp() if text else 0.0


def rq_says(store: redis.Redis, job_id: str) -> str:
    """Return what RQ's own library tells of a job that is over: its state, and the text or the reason with it."""
    job = Job.fetch(job_id, connection=store, serializer=JSONSerializer)
    result: Any = job.latest_result()
    count = store.xlen(f"rq:results:{job_id}")
    if result is None or count != 1:
        return f"{job.get_status(refresh=False)} with {count} results"
    if result.type is result.Type.SUCCESSFUL:
        return f"finished: {text_of(result.return_value)}"
    return f"failed: {'with a reason' if result.exc_string else 'without a reason'}"
