"""A subscription to one channel for as long as the process lives, over lost and silent connections and odd messages.

Messages are hints. What waits for one reads now and then what is stored, so a lost message costs a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from bitladder.queue.server.connection import connect
from bitladder.queue.server.outage import OUTAGE
from bitladder.settings.redis_section import RedisSettings

log = structlog.get_logger()
# A silent connection is pinged this often, and given up if no answer has come by the next time.
PING_EVERY_S = 10.0
# Between two connections.
_PAUSE_S = 0.2
# Odd messages may come with every token: of so many, one is logged.
_LOG_ONE_IN = 1000


class Subscription:
    """Hands every message to `take`; `on_gap` is called when messages may have been missed, or could not be read."""

    def __init__(
        self,
        settings: RedisSettings,
        channel: str,
        take: Callable[[bytes], None],
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = connect(settings, wait_s=30)
        self._channel, self._take, self._on_gap = channel, take, on_gap
        self.subscribed = asyncio.Event()
        self._odd_messages = 0

    async def run(self) -> None:
        """Listen until cancelled; after a lost connection, subscribe again."""
        is_logged = False
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self.subscribed.is_set() or not is_logged:
                    OUTAGE.warn("channel lost, subscribing again", channel=self._channel, error=str(error))
                is_logged = True
            finally:
                self.subscribed.clear()
            await asyncio.sleep(_PAUSE_S)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _listen(self) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            is_pinged = False
            while True:
                message = await pubsub.get_message(timeout=PING_EVERY_S)
                if message is not None:
                    is_pinged = False
                    self._receive(message)
                elif is_pinged:
                    raise RedisConnectionError(f"no answer to a ping for {2 * PING_EVERY_S:g} s")
                else:
                    is_pinged = True
                    await pubsub.ping()

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.subscribed.set()
            self._on_gap()
        elif message["type"] == "message":
            try:
                self._take(message["data"])
            except Exception as error:
                # Another program may have published it, or a later version in its own form. It may hold a prompt, so it
                # is not logged.
                if self._odd_messages % _LOG_ONE_IN == 0:
                    log.warning("message not understood", channel=self._channel, error=type(error).__name__)
                self._odd_messages += 1
                self._on_gap()
