"""One channel of one process, listened to for as long as it lives, over lost and deaf connections and odd messages.

Messages are hints. Whoever waits for one looks now and then at what is stored, so a lost one costs a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from bitladder.queue.server.connection import connect
from bitladder.settings.sections import RedisSettings

log = structlog.get_logger()
# A silent channel is asked for a sign of life this often; one that gives none until the next time is given up.
ASK_EVERY_S = 10.0
# Between two connections.
PAUSE_S = 0.2
# Odd messages may come with every token: of so many, one is logged.
LOG_ONE_IN = 1000


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
        self._odd = 0

    async def run(self) -> None:
        """Listen until cancelled; after a lost connection, subscribe again."""
        is_said = False
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self.subscribed.is_set() or not is_said:
                    log.warning("channel lost, subscribing again", channel=self._channel, error=str(error))
                is_said = True
            finally:
                self.subscribed.clear()
            await asyncio.sleep(PAUSE_S)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _listen(self) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            is_asked = False
            while True:
                message = await pubsub.get_message(timeout=ASK_EVERY_S)
                if message is not None:
                    is_asked = False
                    self._heard(message)
                elif is_asked:
                    raise RedisConnectionError(f"no sign of life for {2 * ASK_EVERY_S:g} s")
                else:
                    is_asked = True
                    await pubsub.ping()

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.subscribed.set()
            self._on_gap()
        elif message["type"] == "message":
            try:
                self._take(message["data"])
            except Exception as error:
                # Anybody may publish, a later version in its own form too. Its words may be a prompt's: not logged.
                if self._odd % LOG_ONE_IN == 0:
                    log.warning("message not understood", channel=self._channel, error=type(error).__name__)
                self._odd += 1
                self._on_gap()
