"""What handlers read of a request: its body, numbers of its query, and the job id in its path."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from bitladder.errors import ClientGoneError, RequestError, SlowBodyError, TooLargeError
from bitladder.ids import from_url
from bitladder.settings.intake_section import IntakeSettings
from dispatcher.http.closing import Closing


async def read_bytes(request: HttpRequest, limits: IntakeSettings, closing: Closing) -> bytes:
    """Read a body up to the limit of its size, in the time that it may take.

    Raises:
        TooLargeError: it is larger; the rest is not read.
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
    declared = request.headers.get("content-length", "")
    chunks, size = [], int(declared) if declared.isdigit() else 0
    if size <= limit:
        size = 0
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                break
    if size > limit:
        raise TooLargeError(f"the body must be at most {limit} bytes ([intake].max_body_bytes), got {size} or more")
    return b"".join(chunks)


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


def path_job_id(request: HttpRequest) -> str:
    """Return the job id in the path."""
    return from_url(request.path_params["job_id"])
