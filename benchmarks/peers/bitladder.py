"""bitladder's adapter: the producer beside Redis, one worker process, the echo engine with no latency."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from benchmarks.peers import base
from bitladder.contract import State
from bitladder.producer import Producer
from bitladder.queue_name import Lane
from bitladder.settings.load import load_settings

CONFIG = str(Path(__file__).parents[1] / "servers" / "bench.toml")


class Bitladder:
    """All guarantees on: caps, deadline, lease, fence, stored outcome. Scoring and routing count as submitting."""

    def __init__(self) -> None:
        self._settings = load_settings(CONFIG, flags={"redis.url": base.URL}).settings

    def enqueue(self, prompts: Sequence[str]) -> None:
        with Producer(self._settings) as producer:
            for prompt in prompts:
                producer.submit(_body(prompt), lane=Lane.BATCH)

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        with Producer(self._settings) as producer:
            producer.submit_many((_body(prompt) for prompt in prompts), lane=Lane.BATCH)

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        with Producer(self._settings) as producer:
            # The first one opens the connections and is not counted.
            return [self._latency_ms(producer, prompt, pause_s) for prompt in (prompts[0], *prompts)][1:]

    def worker(self) -> Sequence[str]:
        url = f"BITLADDER_REDIS__URL={base.URL}"
        return ["env", url, sys.executable, "-P", "-m", "workers", "--tier", "int4", "--config", CONFIG]

    def done(self, client: redis.Redis) -> int:
        return int(client.zcard("rq:finished:bench:int4:batch"))

    @staticmethod
    def _latency_ms(producer: Producer, prompt: str, pause_s: float) -> float:
        start = time.perf_counter()
        outcome = producer.run(_body(prompt), timeout_s=30)
        took_ms = (time.perf_counter() - start) * 1000
        if outcome.state is not State.FINISHED:
            raise RuntimeError(f"a job must finish, got {outcome}")
        time.sleep(pause_s)
        return took_ms


def _body(prompt: str) -> dict[str, object]:
    return {"model": "bench", "prompt": prompt, "max_tokens": 1}


if __name__ == "__main__":
    base.main(Bitladder())
