"""Query parameters."""

from __future__ import annotations

from starlette.requests import Request

from bitladder.errors import RequestError


def query_number(request: Request, name: str, *, maximum: float) -> float | None:
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
