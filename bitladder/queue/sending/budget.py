"""How many bytes of prompts, answers or tokens go in one call: few enough to arrive in time on any network.

A count alone bounds nothing: 256 jobs may be 16 kB or 256 MB. Halved after a failure and a little larger after each
success, as in D. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks", 1989.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from bitladder.errors import QueueUnreachableError

Item = TypeVar("Item")
# At 5 MB/s the maximum arrives within `redis.timeout_s`. No call of usual jobs comes near it.
MIN_BYTES, MAX_BYTES = 64 * 1024, 4 * 1024 * 1024
# By this share of itself the budget grows after a success.
_GROWTH = 1 / 8


class ByteBudget:
    """How many bytes one call may hold at the moment. A single item is sent whatever its size."""

    def __init__(self) -> None:
        self.bytes = MAX_BYTES

    @contextlib.contextmanager
    def tried(self) -> Iterator[None]:
        """Make a call in this block. One that is not answered may have been too large: the next one is smaller."""
        try:
            yield
        except QueueUnreachableError:
            self.learn(is_answered=False)
            raise
        self.learn(is_answered=True)

    def learn(self, *, is_answered: bool) -> None:
        if is_answered:
            self.bytes = min(MAX_BYTES, int(self.bytes * (1 + _GROWTH)))
        else:
            self.bytes = max(MIN_BYTES, self.bytes // 2)

    def first(self, items: Sequence[Item], size: Callable[[Item], int]) -> Sequence[Item]:
        """Return those of the first items that fit, at least one."""
        left = self.bytes
        for index, item in enumerate(items):
            left -= size(item)
            if left < 0 and index:
                return items[:index]
        return items


def bundled(items: Iterable[Item], max_items: int, size: Callable[[Item], int], max_bytes: int) -> Iterator[list[Item]]:
    """Yield items in bundles of at most `max_items` items and `max_bytes`; a larger item goes alone.

    Before a bundle is yielded, at most one item behind it is taken from `items`: the one that did not fit.
    """
    bundle: list[Item] = []
    left = max_bytes
    for item in items:
        item_bytes = size(item)
        if bundle and item_bytes > left:
            yield bundle
            bundle, left = [], max_bytes
        bundle.append(item)
        left -= item_bytes
        if len(bundle) == max_items:
            yield bundle
            bundle, left = [], max_bytes
    if bundle:
        yield bundle
