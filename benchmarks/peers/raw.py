"""The floor: what redis-py and two minimal scripts reach, without routing, decoding or an engine.

A job is a hash and an id in a list. The worker's first script pops up to 64 ids, leases them in a sorted set and
returns their payloads; its second stores a result for each that is still leased. One worker, one round trip each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import redis

from benchmarks.peers import base

BATCH = 64
CLAIM = """
local out = {}
for _, id in ipairs(redis.call('LPOP', 'raw:queue', ARGV[1]) or {}) do
  redis.call('ZADD', 'raw:leases', ARGV[2], id)
  redis.call('HSET', 'raw:job:' .. id, 'status', 'started')
  out[#out + 1] = id
  out[#out + 1] = redis.call('HGET', 'raw:job:' .. id, 'data')
end
return out
"""
FINISH = """
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', 'raw:leases', id) == 1 then
    redis.call('HSET', 'raw:job:' .. id, 'status', 'finished', 'result', '1', 'data', '')
    redis.call('EXPIRE', 'raw:job:' .. id, 3600)
    redis.call('INCR', 'raw:done')
    redis.call('PUBLISH', 'raw:done:' .. id, '1')
  end
end
"""


class Raw:
    """No queue at all, only its traffic."""

    def enqueue(self, prompts: Sequence[str]) -> None:
        client = redis.Redis.from_url(base.URL)
        for number, prompt in enumerate(prompts):
            pipe = client.pipeline(transaction=False)
            _push(pipe, number, prompt)
            pipe.execute()

    def enqueue_bulk(self, prompts: Sequence[str]) -> None:
        client = redis.Redis.from_url(base.URL)
        start = int(client.incrby("raw:ids", len(prompts))) - len(prompts)
        for first in range(0, len(prompts), 256):
            pipe = client.pipeline(transaction=False)
            for number, prompt in enumerate(prompts[first : first + 256], start + first):
                _push(pipe, number, prompt)
            pipe.execute()

    def latencies_ms(self, prompts: Sequence[str], pause_s: float) -> list[float]:
        client = redis.Redis.from_url(base.URL)
        took = []
        for number, prompt in enumerate(prompts):
            start = time.perf_counter()
            with client.pubsub(ignore_subscribe_messages=True) as done:  # type: ignore[no-untyped-call]  # redis-py
                done.subscribe(f"raw:done:{number}")
                self.enqueue_one(client, number, prompt)
                while not done.get_message(timeout=5):
                    pass
            took.append((time.perf_counter() - start) * 1000)
            time.sleep(pause_s)
        return took

    def enqueue_one(self, client: redis.Redis, number: int, prompt: str) -> None:
        """Submit one job and wake the worker."""
        pipe = client.pipeline(transaction=False)
        _push(pipe, number, prompt)
        pipe.rpush("raw:wake", 1)
        pipe.execute()

    def worker(self) -> Sequence[str]:
        return [sys.executable, "-m", "benchmarks.peers.raw", "loop"]

    def done(self, client: redis.Redis) -> int:
        return int(client.get("raw:done") or 0)


def _push(pipe: redis.client.Pipeline, number: int, prompt: str) -> None:
    pipe.hset(f"raw:job:{number}", mapping={"data": prompt, "status": "queued"})
    pipe.rpush("raw:queue", number)


def loop() -> None:
    """Work until the process is ended."""
    client = redis.Redis.from_url(base.URL)
    claim, finish = client.register_script(CLAIM), client.register_script(FINISH)
    while True:
        taken = claim(args=[BATCH, int(time.time()) + 15])
        if taken:
            finish(args=taken[::2])
        else:
            client.blpop(["raw:wake"], timeout=1)


if __name__ == "__main__":
    if sys.argv[1:] == ["loop"]:
        loop()
    base.main(Raw())
