"""Try again for as long as Redis is unreachable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bitladder.errors import QueueUnreachableError

Result = TypeVar("Result")
# Random, so that the workers of an outage do not all come back at the same moment.
# The shortest pause is a fifth of the longest.
MAX_PAUSE_S = 1.0


async def until_reachable(
    call: Callable[[], Awaitable[Result]], on_failure: Callable[[QueueUnreachableError], None] | None = None
) -> Result:
    """Return what `call` returns, as soon as Redis answers it. `on_failure` is told of each try that failed."""
    while True:
        try:
            return await call()
        except QueueUnreachableError as error:
            if on_failure:
                on_failure(error)
        await pause()


async def pause(max_s: float | None = None) -> None:
    """Sleep for a random time before the next try, at most `max_s` (MAX_PAUSE_S)."""
    max_s = MAX_PAUSE_S if max_s is None else max_s
    await asyncio.sleep(random.uniform(max_s / 5, max_s))  # noqa: S311  (jitter)
