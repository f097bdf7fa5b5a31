"""A log of what an engine ran: a line of JSON when an execution begins, and one when it ends, without any prompt.

Several workers may share a file: each line is one write of a few hundred bytes at the file's end, so lines do not mix.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from bitladder.errors import ConfigError
from workers.engines.base import CLAIM
from workers.engines.errors import EngineLostError, EnoughError


class Event(StrEnum):
    """What a line reports."""

    BEGIN = "begin"
    END = "end"


class How(StrEnum):
    """How an execution ended. An execution without an end still runs, or its worker was killed."""

    ANSWERED = "answered"
    FAULT = "fault"
    LOST = "lost"  # the engine crashed, with all it ran
    ABORTED = "aborted"  # by the worker: deadline, cancellation, drain, lost lease, a beginning that was too unsure


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log. Outside a worker there is no claim, and the fields of the claim are empty."""

    at_ms: int  # wall clock
    event: Event
    tier: str  # of the worker
    pid: int  # of the worker
    job_id: str = ""
    fence: int = 0  # of the claim: one claim is one execution
    attempt: int = 0
    queue: str = ""  # where the job waited
    how: How | None = None  # of an end


class ExecutionLog:
    """Appends to one file, which is opened for each line, so that it may be moved away at any time."""

    def __init__(self, path: str, tier: str) -> None:
        self._path, self._tier = Path(path), tier
        try:
            self._append(b"")
        except OSError as error:
            message = f"echo.execution_log must be a file that can be written, got {path!r}: {error.strerror}"
            raise ConfigError(message) from error

    @contextlib.contextmanager
    def execution(self) -> Iterator[None]:
        """Log the begin of an execution, and its end however the block ends."""
        self._write(Event.BEGIN, None)
        how = How.FAULT
        try:
            yield
            how = How.ANSWERED
        except (asyncio.CancelledError, EnoughError):
            how = How.ABORTED
            raise
        except EngineLostError:
            how = How.LOST
            raise
        finally:
            self._write(Event.END, how)

    def _write(self, event: Event, how: How | None) -> None:
        claim = CLAIM.get()
        line = Line(
            at_ms=time.time_ns() // 1_000_000,
            event=event,
            tier=self._tier,
            pid=os.getpid(),
            job_id=claim.job_id if claim else "",
            fence=claim.fence if claim else 0,
            attempt=claim.attempt if claim else 0,
            queue=claim.queue if claim else "",
            how=how,
        )
        self._append(msgspec.json.encode(line) + b"\n")

    def _append(self, data: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(data)
