"""Who decides about a proposal, and when: what its history notes."""

from __future__ import annotations

import getpass
import platform
from datetime import UTC, datetime


def operator() -> str:
    """Return who runs this command, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = "unknown"
    return "".join(char if char.isprintable() else "?" for char in f"{user}@{platform.node()}")[:100]


def time_now() -> str:
    return as_time(datetime.now(UTC).timestamp())


def as_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
