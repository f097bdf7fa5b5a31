"""Who orders: the name that a command notes in the audit log where it asks Redis itself."""

from __future__ import annotations

import getpass
import platform

_MAX_NAME = 100


def operator() -> str:
    """Return who gives an order to Redis itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = "unknown"
    name = f"{user}@{platform.node()}"
    return "".join(char if char.isprintable() else "?" for char in name)[:_MAX_NAME]
