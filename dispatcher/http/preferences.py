"""Prefer (RFC 7240): what a client would like, and what of it was done."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from starlette.requests import Request as HttpRequest


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """The preferences that are known here; all others are ignored, as the RFC says."""

    respond_async: bool = False  # 202 will do
    waits: bool = False  # `wait` was asked for, with or without a number
    wait_s: float | None = None  # for so many seconds at most; None: as usual

    def applied(self, *, is_async: bool) -> dict[str, str]:
        """Return the header that says which of them were followed."""
        names = ["respond-async"] if is_async else []
        names += [f"wait={self.wait_s:g}"] if self.wait_s else []
        return {"Preference-Applied": ", ".join(names)} if names else {}


NO_PREFERENCES = Preferences()


def preferences_of(request: HttpRequest, max_s: float) -> Preferences:
    """Return the preferences of a request; it waits for no longer than `max_s`."""
    headers = request.headers.getlist("prefer")
    return _read(headers, max_s) if headers else NO_PREFERENCES


def _read(headers: Iterable[str], max_s: float) -> Preferences:
    """Read headers: of a preference that is there several times, the first counts."""
    values: dict[str, str] = {}
    for part in ",".join(headers).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        values.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait_s = _seconds(values.get("wait", ""))
    return Preferences(
        respond_async="respond-async" in values,
        waits="wait" in values,
        wait_s=None if wait_s is None else min(wait_s, max_s),
    )


def _seconds(text: str) -> float | None:
    """Return a time; None where it is none, which is ignored."""
    try:
        seconds = float(text) if text.isascii() else math.nan
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
