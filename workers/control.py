"""Hear at once that a running job was cancelled, or that an operator orders something.

The next renewal of the lease tells of a message that was lost.
"""

from __future__ import annotations

from collections.abc import Callable

from bitladder.ids import read_id
from bitladder.queue.waiting.subscription import Subscription
from bitladder.settings.redis_section import RedisSettings


class ControlChannel:
    """The control channel of one worker: each message is the id of a job to abort, or empty: renew the lease now."""

    def __init__(
        self, settings: RedisSettings, worker: str, cancel: Callable[[str], None], renew: Callable[[], None]
    ) -> None:
        self._cancel, self._renew = cancel, renew
        self._subscription = Subscription(settings, f"bl:control:{worker}", self._take)

    async def listen(self) -> None:
        """Listen until cancelled."""
        await self._subscription.run()

    async def aclose(self) -> None:
        await self._subscription.aclose()

    def _take(self, message: bytes) -> None:
        if message:
            self._cancel(read_id(message))
        else:
            self._renew()
