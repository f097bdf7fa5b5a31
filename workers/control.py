"""Hear at once when somebody cancels a running job. A message that is lost is caught up on at the next renewal."""

from __future__ import annotations

from collections.abc import Callable

from bitladder.ids import read_id
from bitladder.queue.waiting.subscription import Subscription
from bitladder.settings.redis_section import RedisSettings


class Control:
    """The control channel of one worker: each message is the id of a job to abort, nothing else."""

    def __init__(self, settings: RedisSettings, worker: str, cancel: Callable[[str], None]) -> None:
        self._cancel = cancel
        self._subscription = Subscription(settings, f"bl:control:{worker}", self._heard)

    async def listen(self) -> None:
        """Listen until cancelled."""
        await self._subscription.run()

    async def aclose(self) -> None:
        await self._subscription.aclose()

    def _heard(self, message: bytes) -> None:
        self._cancel(read_id(message))
