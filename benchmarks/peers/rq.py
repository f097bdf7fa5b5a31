"""RQ: one Redis hash per job, one job at a time per worker."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from rq import Queue

from benchmarks.peers.base import URL, main

# `fork` is what `rq worker` runs unless told otherwise: a process per job. `simple` runs the jobs in the worker itself.
WORKERS = {"simple": "rq.worker.SimpleWorker", "fork": "rq.worker.Worker"}
VARIANT = os.environ.get("BENCH_VARIANT", "simple")  # noqa: TID251  (an adapter is its own program)
JOB = "benchmarks.peers.rq.noop"  # by name: RQ takes no function from __main__
FINISHED = "rq:finished:default"
BATCH = 1000


def noop(prompt: str) -> int:
    """Do nothing with the prompt."""
    return 1


class Rq:
    """RQ with its own defaults: pickled jobs, results kept for 500 s, 180 s a job."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        with redis.Redis.from_url(URL) as client:
            queue = Queue(connection=client)
            for prompt in prompts:
                queue.enqueue(JOB, prompt)

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        with redis.Redis.from_url(URL) as client:
            queue = Queue(connection=client)
            # One pipeline per call of enqueue_many; batches keep its buffer, and Redis's reply, small.
            for first in range(0, len(prompts), BATCH):
                batch = prompts[first : first + BATCH]
                queue.enqueue_many([Queue.prepare_data(JOB, args=(prompt,)) for prompt in batch])

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        taken = []
        with redis.Redis.from_url(URL) as client:
            queue = Queue(connection=client)
            for prompt in (prompts[0], *prompts):  # the first one opens the connection and is not counted
                start = time.perf_counter()
                result = queue.enqueue(JOB, prompt).latest_result(timeout=10)  # blocks on the job's stream of results
                taken.append(1000 * (time.perf_counter() - start))
                if result is None:
                    raise TimeoutError("no result within 10 s")
                time.sleep(pause_s)
        return taken[1:]

    def worker(self) -> Sequence[str]:
        rq = Path(sys.executable).parent / "rq"
        # --quiet logs warnings; at the default level every job writes two lines.
        return [str(rq), "worker", "--url", URL, "--worker-class", WORKERS[VARIANT], "--quiet", "default"]

    def done(self, client: redis.Redis) -> int:
        return int(client.zcard(FINISHED))  # a job enters it in the transaction that stores its result


if __name__ == "__main__":
    main(Rq())
