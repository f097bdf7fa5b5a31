"""taskiq: asyncio, taskiq-redis's list broker and its result backend."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.peers.base import URL, main

# Results in a database of their own, so that they can be counted without the queue.
RESULTS_URL = urlsplit(URL)._replace(path="/1").geturl()
AT_ONCE = 100
IN_FLIGHT = 10  # each takes a connection; with 100 the producer is a fifth slower than with 10


async def noop(prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


def build() -> AsyncBroker:
    """Return the broker; `taskiq worker` takes such a function too."""
    # The broker waits in a BRPOP without end, which redis-py 8's default read timeout of 5 s breaks on an idle queue
    # (taskiq-redis issue 127). Results expire: without it they stay for good, which the documentation warns against.
    results = RedisAsyncResultBackend[Any](RESULTS_URL, result_ex_time=3600)
    broker = ListQueueBroker(URL, socket_timeout=None).with_result_backend(results)
    broker.register_task(noop, task_name="noop")
    return broker


class Taskiq:
    """taskiq with its own defaults: JSON messages, pickled results."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        async def submit() -> None:
            async with _task() as task:
                for prompt in prompts:
                    await task.kiq(prompt)

        asyncio.run(submit())

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        async def submit() -> None:
            async with _task() as task:
                # No call for many jobs: each is an LPUSH of its own, so several are kept in flight.
                for first in range(0, len(prompts), IN_FLIGHT):
                    await asyncio.gather(*(task.kiq(prompt) for prompt in prompts[first : first + IN_FLIGHT]))

        asyncio.run(submit())

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        async def measure() -> list[float]:
            taken = []
            async with _task() as task:
                for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
                    start = time.perf_counter()
                    sent = await task.kiq(prompt)
                    result = await sent.wait_result(check_interval=0.001, timeout=10)  # polls; 0.2 s by default
                    taken.append(1000 * (time.perf_counter() - start))
                    result.raise_for_error()
                    await asyncio.sleep(pause_s)
            return taken[1:]

        return asyncio.run(measure())

    def worker(self) -> Sequence[str]:
        taskiq = Path(sys.executable).parent / "taskiq"
        one_process = ["--workers", "1", "--max-async-tasks", str(AT_ONCE)]
        return [str(taskiq), "worker", "benchmarks.peers.taskiq:build", *one_process, "--log-level", "WARNING"]

    def done(self, client: redis.Redis) -> int:
        return int(client.info("keyspace").get("db1", {}).get("keys", 0))  # a key per result, and nothing else there


@asynccontextmanager
async def _task() -> AsyncIterator[AsyncTaskiqDecoratedTask[Any, Any]]:
    broker = build()  # a new one for each event loop, because its connection pool belongs to one
    await broker.startup()
    try:
        yield broker.find_task("noop")
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    main(Taskiq())
