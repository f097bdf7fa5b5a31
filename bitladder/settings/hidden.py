"""Secrets in values that are not secret as a whole: a URL's password, the key among a command line's arguments.

Whatever shows a value of the configuration shows it so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MASK = "**********"
_USER_INFO = re.compile(r"(?<=://)\S*@")
_SECRET_NAME = re.compile(r"(key|token|secret|passw(or)?d|credentials?)$", re.IGNORECASE)


def hidden(value: Any) -> Any:  # noqa: ANN401  (of any setting)
    """Return a value as it may be shown."""
    if isinstance(value, str):
        return _USER_INFO.sub(f"{MASK}@", value)
    if isinstance(value, dict):
        return {key: MASK if _SECRET_NAME.search(str(key)) else hidden(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(_hidden_arguments(value))
    return value


def _hidden_arguments(arguments: Iterable[Any]) -> Iterable[Any]:
    """Yield arguments; the value of one that is named like a secret is behind its '=', or is the next one."""
    is_secret = False
    for argument in arguments:
        name, equals, _ = argument.partition("=") if isinstance(argument, str) else ("", "", "")
        is_named = name.startswith("-") and _SECRET_NAME.search(name) is not None
        if is_secret and not name.startswith("-"):
            yield MASK
        else:
            yield f"{name}={MASK}" if is_named and equals else hidden(argument)
        is_secret = is_named and not equals
