"""Celery: a forked pool of one, Redis as broker and as result backend."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import redis
from celery import Celery

from benchmarks.peers.base import URL, main

# Results in a database of their own, so that they can be counted without the keys of the transport.
RESULTS_URL = urlsplit(URL)._replace(path="/1").geturl()

app = Celery("bench", broker=URL, backend=RESULTS_URL)


@app.task(name="noop")
def noop(prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


class CeleryPeer:
    """Celery with its own defaults: JSON, results kept for a day, four messages prefetched for each process."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            noop.delay(prompt)

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        # One by one all the same, over one producer; a `group` of them is slower, for what it adds to each message.
        with app.producer_or_acquire() as producer:
            for prompt in prompts:
                noop.apply_async((prompt,), producer=producer)

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        taken = []
        for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
            start = time.perf_counter()
            noop.delay(prompt).get(timeout=10)  # the Redis backend subscribes; it does not poll
            taken.append(1000 * (time.perf_counter() - start))
            time.sleep(pause_s)
        return taken[1:]

    def worker(self) -> Sequence[str]:
        celery = Path(sys.executable).parent / "celery"
        pool = ["--pool", "prefork", "--concurrency", "1"]
        # What several workers tell each other is of no use to one worker.
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return [str(celery), "--app", "benchmarks.peers.celery", "worker", *pool, *alone, "--loglevel", "ERROR"]

    def done(self, client: redis.Redis) -> int:
        return int(client.info("keyspace").get("db1", {}).get("keys", 0))  # a key per result, and nothing else there


if __name__ == "__main__":
    main(CeleryPeer())
