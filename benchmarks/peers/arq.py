"""arq: asyncio, a sorted set that the worker polls."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from arq.connections import ArqRedis, RedisSettings, create_pool

from benchmarks.peers.base import URL, main

SETTINGS = RedisSettings.from_dsn(URL)
QUEUE = "arq:queue"
SUBMITTED = "bench:submitted"
AT_ONCE = 100
# arq logs two lines a job at INFO; its command line takes a logging configuration instead of a level.
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": "WARNING"}}}


async def noop(ctx: dict[str, Any], prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


class WorkerSettings:
    """What `arq` reads."""

    functions = (noop,)
    redis_settings = SETTINGS
    max_jobs = AT_ONCE  # the default of 10 leaves the worker waiting for Redis
    poll_delay = 0.01  # arq polls: the default of 0.5 s is both its latency and, at max_jobs a poll, its top rate
    keep_result = 3600
    log_results = False


class Arq:
    """arq with its default serializer, pickle."""

    def __init__(self) -> None:
        self._submitted: int | None = None

    def enqueue(self, prompts: Sequence[str]) -> None:
        async def submit() -> None:
            pool = await _open(len(prompts))
            for prompt in prompts:
                await pool.enqueue_job("noop", prompt)
            await pool.aclose()

        asyncio.run(submit())

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        async def submit() -> None:
            pool = await _open(len(prompts))
            # No call for many jobs: each is a transaction of its own, so many are kept in flight.
            for first in range(0, len(prompts), AT_ONCE):
                batch = prompts[first : first + AT_ONCE]
                await asyncio.gather(*(pool.enqueue_job("noop", prompt) for prompt in batch))
            await pool.aclose()

        asyncio.run(submit())

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        async def measure() -> list[float]:
            taken = []
            pool = await _open(len(prompts) + 1)
            for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
                start = time.perf_counter()
                job = await pool.enqueue_job("noop", prompt)
                if job is None:
                    raise RuntimeError("arq found the job's id in use")
                await job.result(timeout=10, poll_delay=0.001)  # polls; the default of 0.5 s would be all one saw
                taken.append(1000 * (time.perf_counter() - start))
                # A fixed pause would meet the worker's fixed poll at the same phase each time, often just too late.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  (no secret)
            await pool.aclose()
            return taken[1:]

        return asyncio.run(measure())

    def worker(self) -> Sequence[str]:
        arq = Path(sys.executable).parent / "arq"
        here = "benchmarks.peers.arq"
        return [str(arq), f"{here}.WorkerSettings", "--custom-log-dict", f"{here}.LOGGING"]

    def done(self, client: redis.Redis) -> int:
        # Results are keys among those of waiting and running jobs, so they cannot be counted by themselves. A job
        # leaves the queue in the transaction that stores its result: what was submitted and is not there is done.
        if self._submitted is None:
            self._submitted = int(client.get(SUBMITTED) or 0)  # once: nothing is submitted while a worker is timed
        return self._submitted - int(client.zcard(QUEUE))


async def _open(jobs: int) -> ArqRedis:
    pool = await create_pool(SETTINGS)
    await pool.incrby(SUBMITTED, jobs)  # for `done`; one command a run
    return pool


if __name__ == "__main__":
    main(Arq())
