"""huey: threads, a list that they block on, all results in one hash."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from huey import RedisHuey

from benchmarks.peers.base import URL, main

queue = RedisHuey("bench", url=URL)


@queue.task()
def noop(prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


class Huey:
    """huey with its own defaults: pickle, results kept until they are read."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            noop(prompt)

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        noop.map(prompts)  # sends them one by one all the same

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        taken = []
        for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
            start = time.perf_counter()
            # Polls every millisecond, where the default backs off from 50 ms to a second. `preserve` keeps the result.
            noop(prompt).get(blocking=True, timeout=10, backoff=1, max_delay=0.001, preserve=True)
            taken.append(1000 * (time.perf_counter() - start))
            time.sleep(pause_s)
        return taken[1:]

    def worker(self) -> Sequence[str]:
        consumer = Path(sys.executable).parent / "huey_consumer"
        threads = ["--workers", "8", "--worker-type", "thread"]
        # The threads wait in BRPOP; the delays are for what does not block.
        delays = ["--delay", "0.001", "--max-delay", "0.01"]
        # --quiet logs warnings; at the default level every job writes two lines.
        return [str(consumer), "benchmarks.peers.huey.queue", *threads, *delays, "--quiet"]

    def done(self, client: redis.Redis) -> int:
        return int(client.hlen(queue.storage.result_key))


if __name__ == "__main__":
    from benchmarks.peers.huey import Huey as Imported  # huey names a task by its module, which must not be __main__

    main(Imported())
