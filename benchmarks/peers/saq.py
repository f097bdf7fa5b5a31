"""SAQ: asyncio, a list that the worker's tasks block on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from saq import Queue
from saq.queue.redis import RedisQueue

from benchmarks.peers.base import URL, main

INCOMPLETE = "saq:default:incomplete"
SUBMITTED = "bench:submitted"
AT_ONCE = 100


async def noop(ctx: dict[str, Any], *, prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


def settings() -> dict[str, Any]:
    """Return what `saq` reads; a function, so that a producer that imports this module opens no queue."""
    # The default concurrency of 10 leaves the worker waiting for Redis.
    return {"queue": RedisQueue.from_url(URL), "functions": [noop], "concurrency": AT_ONCE}


class Saq:
    """SAQ with its own defaults: JSON, results kept for 600 s, 10 s a job."""

    def __init__(self) -> None:
        self._submitted: int | None = None

    def enqueue(self, prompts: Sequence[str]) -> None:
        async def submit() -> None:
            queue = await _open(len(prompts))
            for prompt in prompts:
                await queue.enqueue("noop", prompt=prompt)
            await queue.disconnect()

        asyncio.run(submit())

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        async def submit() -> None:
            queue = await _open(len(prompts))
            # No call for many jobs: each is a script call of its own, so many are kept in flight.
            for first in range(0, len(prompts), AT_ONCE):
                batch = prompts[first : first + AT_ONCE]
                await asyncio.gather(*(queue.enqueue("noop", prompt=prompt) for prompt in batch))
            await queue.disconnect()

        asyncio.run(submit())

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        async def measure() -> list[float]:
            taken = []
            queue = await _open(len(prompts) + 1)
            for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
                start = time.perf_counter()
                # `apply` polls. `job.refresh(until_complete=..)` subscribes, but too late if the job has just ended
                # and then waits for a message that has passed: that happened once in some hundred jobs.
                await queue.apply("noop", timeout=10, poll_interval=0.001, prompt=prompt)
                taken.append(1000 * (time.perf_counter() - start))
                await asyncio.sleep(pause_s)
            await queue.disconnect()
            return taken[1:]

        return asyncio.run(measure())

    def worker(self) -> Sequence[str]:
        saq = Path(sys.executable).parent / "saq"
        return [str(saq), "benchmarks.peers.saq.settings"]  # logs warnings unless -v is given

    def done(self, client: redis.Redis) -> int:
        # A job's result is in the job's own key, which is there from the start, so results cannot be counted by
        # themselves. A job leaves the set of incomplete ones in the transaction that stores its result.
        if self._submitted is None:
            self._submitted = int(client.get(SUBMITTED) or 0)  # once: nothing is submitted while a worker is timed
        return self._submitted - int(client.zcard(INCOMPLETE))


async def _open(jobs: int) -> Queue:
    queue = RedisQueue.from_url(URL)
    await queue.connect()
    await queue.redis.incrby(SUBMITTED, jobs)  # for `done`; one command a run
    return queue


if __name__ == "__main__":
    main(Saq())
