"""What a worker needs of an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Protocol

import msgspec

from bitladder.contract import Claimed

# Called with every chunk of a streamed answer, as server-sent-event bytes.
OnChunk = Callable[[bytes], Awaitable[None]]

# The claim that the present task runs, for an engine that writes down what it ran. The pump sets it.
CLAIM: ContextVar[Claimed | None] = ContextVar("CLAIM", default=None)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's HTTP answer. A stream's body is what its chunks make up, as if it had not been streamed."""

    status: int
    body: bytes  # empty for a stream that is too large to be kept
    ttft_s: float | None = None  # streams only
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsent: bytes = b""  # chunks without any token: whether the answer is worth sending is still to be judged


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How full an engine is, by its own figures."""

    running: int = 0  # requests in its batch
    waiting: int = 0  # requests it holds but has not started
    cache_used: float = 0.0  # share of the KV cache, 0 to 1
    tokens: int | None = None  # read and written since the engine started; None: it does not say
    corrupted: int = 0  # requests with NaN in their logits, since it started


class Answers(Protocol):
    """Answers OpenAI requests, many at once."""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        """Answer one request; cancelling this call aborts it.

        Raises:
            EngineBusyError: it did not start.
            EngineFaultError: it broke on the way.
            EngineLostError: the whole engine is gone.

        """


class Engine(Answers, Protocol):
    """What a worker starts, feeds, looks at and ends."""

    async def start(self) -> str:
        """Return when the engine answers, whatever it was before: what was in flight raises EngineLostError.

        Say what it had to take less of than it was told to, if anything. Raises EngineError when it will not start.
        """

    async def load(self) -> EngineLoad:
        """Return the present load."""

    async def is_healthy(self) -> bool:
        """Return whether the engine answers."""

    async def stop(self) -> None:
        """End the engine and give its memory back."""
