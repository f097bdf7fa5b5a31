"""What handlers read of a request: its body, numbers of its query, and the job id in its path."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from bitladder.errors import ClientGoneError, RequestError, SlowBodyError, TooLargeError
from bitladder.ids import from_url
from bitladder.settings.intake_section import IntakeSettings
from dispatcher.http.closing import Closing
from dispatcher.http.content_coding import reader_of

# Of a whole number in a query.
_MAX_DIGITS = 20


async def read_bytes(request: HttpRequest, limits: IntakeSettings, closing: Closing) -> bytes:
    """Read a body up to the limit of its size, in the time that it may take.

    Raises:
        ContentCodingError: it is compressed in a way that is not known.
        TooLargeError: it is larger, as it was sent or inflated; the rest is not read.
        SlowBodyError: it takes too long.
        ClientGoneError: it ends in the middle.
        IntakeClosingError: the intake does.

    """
    limit_s = limits.body_timeout_s
    try:
        with closing.interrupts():
            async with asyncio.timeout(limit_s):
                return await _read(request, limits.max_body_bytes)
    except TimeoutError:
        raise SlowBodyError(f"the body must arrive within {limit_s:g} s ([intake].body_timeout_s)") from None
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection") from None


async def _read(request: HttpRequest, limit: int) -> bytes:
    body = reader_of(", ".join(request.headers.getlist("content-encoding")))
    declared = request.headers.get("content-length", "")
    sent, size = int(declared) if declared.isdigit() else 0, 0
    parts = []
    if sent <= limit:
        sent = 0
        async for chunk in request.stream():
            sent += len(chunk)
            parts.append(body.inflate(chunk, limit + 1 - size))
            size += len(parts[-1])
            if max(sent, size) > limit:
                break
    if max(sent, size) > limit:
        raise TooLargeError(
            f"the body must be at most {limit} bytes ([intake].max_body_bytes), inflated too, "
            f"got {max(sent, size)} or more"
        )
    body.end()
    return b"".join(parts)


def query_number(request: HttpRequest, name: str, *, maximum: float) -> float | None:
    """Return a query parameter that is a number from 0 to `maximum`; None: it is not there.

    Raises:
        RequestError: it is something else.

    """
    raw = request.query_params.get(name)
    if raw is None:
        return None
    try:
        value = float(raw)
    except ValueError:
        value = -1
    if not 0 <= value <= maximum:
        raise RequestError(f"{name} must be a number from 0 to {maximum:g}, got {raw[:40]!r}", param=name)
    return value


def query_count(request: HttpRequest, name: str, *, minimum: int = 0, maximum: int) -> int | None:
    """Return a query parameter that is a whole number; None: it is not there.

    Raises:
        RequestError: it is something else.

    """
    raw = request.query_params.get(name)
    if raw is None:
        return None
    value = int(raw) if raw.isascii() and raw.isdecimal() and len(raw) <= _MAX_DIGITS else -1
    if not minimum <= value <= maximum:
        raise RequestError(f"{name} must be a whole number from {minimum} to {maximum}, got {raw[:40]!r}", param=name)
    return value


def query_flag(request: HttpRequest, name: str) -> bool:
    """Return a query parameter that is true or false; it is false where it is not there.

    Raises:
        RequestError: it is something else.

    """
    raw = request.query_params.get(name, "false")
    if raw.lower() not in ("true", "1", "false", "0"):
        raise RequestError(f"{name} must be true or false, got {raw[:40]!r}", param=name)
    return raw.lower() in ("true", "1")


def path_job_id(request: HttpRequest) -> str:
    """Return the job id in the path."""
    return from_url(request.path_params["job_id"])
