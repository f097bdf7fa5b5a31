"""What a worker says of itself once a second, in the field `report` of its hash: health.lua writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from bitladder.queue.untrusted import MAX_NUMBER

# Workers say that their rates are those of so many seconds, their overflow that of a minute, and lost leases of ten.
RATE_WINDOW_S, OVERFLOW_WINDOW_S, LOST_WINDOW_S = 10, 60, 600
# An older report says nothing about now: its worker hangs, or is gone.
STALE_MS = 5_000
_MAX_BYTES = 8_192
_Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_Rate = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
_Origins = Annotated[dict[Annotated[str, Meta(max_length=63)], _Count], Meta(max_length=64)]


class Breaker(StrEnum):
    """State of an engine's circuit breaker, from good to bad."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker: counts since its start, and rates."""

    slots: _Count = 0
    breaker: Breaker = Breaker.CLOSED
    jobs: _Count = 0  # that ended here
    tokens: _Count = 0  # written by them
    overflow: _Origins = {}  # of these, jobs of lower tiers
    jobs_per_s: _Rate = 0.0
    tokens_per_s: _Rate = 0.0
    overflow_in: _Origins = {}  # in the last minute
    lost: _Count = 0  # jobs whose lease was lost, this worker's or one that it reaped
    in_flight: _Count | None = None
    checkpoint: Annotated[str, Meta(max_length=1000)] = ""  # as the settings name it, or the engine that has none
    release: _Count | None = None  # published, that it is of
    ready_since_ms: _Count = 0  # by Redis' clock; 0: it is not ready
    was_ready: bool = False  # its engine has answered since its start
    is_draining: bool = False


def encode_report(report: WorkerReport) -> bytes:
    return msgspec.json.encode(report)


def read_report(raw: bytes | None) -> WorkerReport | None:
    """Read a report; None where there is none, or it is not one of ours."""
    if not raw or len(raw) > _MAX_BYTES:
        return None
    try:
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


_DECODER = msgspec.json.Decoder(WorkerReport)
