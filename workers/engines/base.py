"""The interface between a worker and its engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Protocol

import msgspec

from bitladder.contract import Claimed

# Called with every chunk of a streamed answer, as server-sent-event bytes. May raise EnoughError.
OnChunk = Callable[[bytes], Awaitable[None]]

# The trace of the present task's job, for an engine that is asked over HTTP. workers/handling/job_traces.py sets it.
TRACE_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("TRACE_HEADERS", default=MappingProxyType({}))
# The claim that the present task runs, for an engine that logs its executions. workers/handling/job_handler.py sets it.
CLAIM: ContextVar[Claimed | None] = ContextVar("CLAIM", default=None)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's HTTP answer. The body of a stream is what its chunks make up, as if it had not been streamed."""

    status: int
    body: bytes  # empty for a stream that is too large to be kept
    ttft_s: float | None = None  # streams only
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsent: bytes = b""  # chunks of a stream without any token: they are held back until the output check


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How full an engine is, by its own metrics."""

    running: int = 0  # requests in its batch
    waiting: int = 0  # requests it holds but has not started
    cache_used: float = 0.0  # share of the KV cache, 0 to 1
    tokens: int | None = None  # of prompts and answers since the engine started; None: it does not report them
    corrupted: int = 0  # requests with NaN in their logits since the engine started
    exposition: str = ""  # all of its metrics, in Prometheus' text format


class Answers(Protocol):
    """Answers OpenAI requests, many at once."""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        """Answer one request; cancelling this call aborts it.

        Raises:
            EngineBusyError: the engine did not start the request.
            EngineFaultError: the engine broke on it.
            EngineLostError: the whole engine is gone.
            EnoughError: `on_chunk` wants no more of it.

        """


class Engine(Answers, Protocol):
    """Answers requests, and can be started, observed and stopped."""

    async def start(self) -> str:
        """Start or restart the engine, and return when it answers. Requests in flight raise EngineLostError.

        Returns the settings it had to reduce, '' for none. Raises EngineError when it does not start.
        """

    async def load(self) -> EngineLoad:
        """Return the present load."""

    async def is_healthy(self) -> bool:
        """Return whether the engine answers."""

    async def stop(self) -> None:
        """Stop the engine and free its memory."""
