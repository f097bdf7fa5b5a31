"""What must not be in Redis when every job is over and every worker has left."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import redis

# Entries about something in flight: nothing is.
IN_FLIGHT = re.compile(rb"(bl:inflight|bl:cancel|rq:wip|bl:counts|rq:queue):.*")
# The set that names queues is bounded by their number, and there is one protocol (docs/redis-keys.md).
ENDLESS = (b"rq:queues", b"bl:protocol")


def leftovers(store: redis.Redis) -> Iterator[str]:
    """Yield a sentence for every key that should not be there, or not without a time to live."""
    for key in sorted(store.scan_iter("*", count=1000)):
        if IN_FLIGHT.fullmatch(key) or key in (b"bl:workers", b"rq:workers"):
            yield f"LEFT: {key.decode()} is still there: {_content(store, key)}"
        elif key not in ENDLESS and store.ttl(key) == -1:
            yield f"ENDLESS: {key.decode()} has no time to live"


def _content(store: redis.Redis, key: bytes) -> object:
    readers: dict[bytes | str, Callable[[], object]] = {
        b"set": lambda: store.smembers(key),
        b"zset": lambda: store.zrange(key, 0, 20),
        b"list": lambda: store.lrange(key, 0, 20),
        b"hash": lambda: store.hgetall(key),
    }
    return readers[store.type(key)]()
