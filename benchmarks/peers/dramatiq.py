"""Dramatiq: threads, its Redis broker and its Redis result backend."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.base import URL, main

# Results in a database of their own, so that they can be counted without the queue's keys.
RESULTS_URL = urlsplit(URL)._replace(path="/1").geturl()

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=RESULTS_URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="noop", store_results=True)
def noop(prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


class Dramatiq:
    """Dramatiq with its own defaults: JSON, results kept for 10 minutes, its usual middleware."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            noop.send(prompt)

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        dramatiq.group([noop.message(prompt) for prompt in prompts]).run()  # sends them one by one all the same

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        taken = []
        for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
            start = time.perf_counter()
            noop.send(prompt).get_result(block=True, timeout=10_000)  # blocks in a BRPOPLPUSH
            taken.append(1000 * (time.perf_counter() - start))
            time.sleep(pause_s)
        return taken[1:]

    def worker(self) -> Sequence[str]:
        command = Path(sys.executable).parent / "dramatiq"
        one_process = ["--processes", "1", "--threads", "8"]
        # The broker polls, and backs off up to this many milliseconds; an idle worker soon reaches the default of 1000.
        poll = ["env", "dramatiq_worker_timeout=10"]
        # --skip-logging leaves Python's own last resort, which shows warnings: the command has no level above INFO.
        return [*poll, str(command), "benchmarks.peers.dramatiq:broker", *one_process, "--skip-logging"]

    def done(self, client: redis.Redis) -> int:
        return int(client.info("keyspace").get("db1", {}).get("keys", 0))  # a key per result, and nothing else there


if __name__ == "__main__":
    main(Dramatiq())
