"""What an engine did with one request, as errors. Each says what becomes of the job (workers/execute.py).

EngineError
├── EngineBusyError                 it did not start the request: the job is requeued, no attempt counted
│   └── EngineUnreachableError      there is no connection to the engine
└── EngineFaultError                it broke: the job is requeued one tier up, an attempt counted
    ├── EngineCorruptedError        it answered with NaN or infinity
    └── EngineLostError             the whole engine is gone, with all its requests: the cause is not known

EnoughError is none of them: who reads an answer's chunks wants no more of it.
"""

from __future__ import annotations

from bitladder.errors import BitladderError


class EngineError(BitladderError):
    """An engine did not answer a request."""


class EngineBusyError(EngineError):
    """The engine refused before it started anything; it may have said for how long it wants no requests."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineUnreachableError(EngineBusyError):
    """No connection to the engine."""


class EngineFaultError(EngineError):
    """The engine broke while it worked on the request."""


class EngineCorruptedError(EngineFaultError):
    """The engine computed NaN or infinity: its answer is worth nothing, whatever it says."""


class EnoughError(BitladderError):
    """Raised by an OnChunk: the rest of the answer is not wanted. It aborts the request, and is no fault."""


class EngineLostError(EngineFaultError):
    """The engine's process or connection is gone: every request in it is lost, and one of them may be the cause."""
