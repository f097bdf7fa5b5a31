"""Bundles of concurrent calls: what arrives while one round trip is under way goes together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Hands items to `flush` in bundles of at most `max_items`, in order, one bundle at a time.

    `flush` may answer the first items alone, at least one: the others go into the next bundle.
    """

    def __init__(self, flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], max_items: int = 64) -> None:
        self._flush = flush
        self._max_items = max_items
        self._pending: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def call(self, item: Item) -> Answer:
        """Return the answer to one item; an error of the bundle is the error of each of its items."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending.append((item, future))
        if self._running is None or self._running.done():
            # In a context of its own: what it logs is about no single caller.
            self._running = asyncio.create_task(self._drain(), context=Context())
        return await future

    async def _drain(self) -> None:
        while self._pending:
            bundle, self._pending = self._pending[: self._max_items], self._pending[self._max_items :]
            await self._send(bundle)

    async def _send(self, bundle: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in bundle])
            if not 0 < len(answers) <= len(bundle):
                raise ValueError(f"a bundle of {len(bundle)} must have 1 to {len(bundle)} answers, got {len(answers)}")
        except BaseException as error:
            # Whatever the error is, no caller goes on waiting for an answer that never comes.
            reason = error if isinstance(error, Exception) else RuntimeError(f"the bundle was given up: {error!r}")
            for _, future in bundle:
                if not future.done():
                    future.set_exception(reason)
            if reason is not error:
                raise
            return
        self._pending[:0] = bundle[len(answers) :]
        for (_, future), answer in zip(bundle, answers, strict=False):
            if not future.done():
                future.set_result(answer)
