"""Hear at once when somebody cancels a running job. A message that is lost is caught up on at the next renewal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from redis.exceptions import RedisError

from dispatcher.ids import read_id
from dispatcher.queue.connection import connect
from dispatcher.sections import RedisSettings


class Control:
    """The control channel of one worker: each message is the id of a job to abort, nothing else."""

    def __init__(self, settings: RedisSettings, worker: str, cancel: Callable[[str], None]) -> None:
        self._client = connect(settings, wait_s=30)
        self._channel, self._cancel = f"bl:control:{worker}", cancel

    async def listen(self) -> None:
        """Listen until cancelled; after a lost connection, subscribe again."""
        try:
            while True:
                with contextlib.suppress(RedisError, OSError):
                    await self._subscribed()
                await asyncio.sleep(0.5)
        finally:
            await self._client.aclose()

    async def _subscribed(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(self._channel)
            while True:
                message = await pubsub.get_message(timeout=10)
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "message":
                    self._cancel(read_id(message["data"]))
