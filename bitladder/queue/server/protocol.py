"""Which protocol the processes at one Redis speak: the forms of records, messages and script calls (decisions/0011).

Every connection asks for it before anything else (sockets.py), so all processes hear of it at their start and when
Redis comes back.
"""

from __future__ import annotations

import re

from redis.exceptions import RedisError

from bitladder.errors import ProtocolError, QueueUnreachableError

KEY = "bl:protocol"
# What this version writes, and the oldest that may be written beside it. A change of form that an older process would
# not understand counts SPOKEN up; UNDERSTOOD_FROM follows once no such form is read any more.
SPOKEN, UNDERSTOOD_FROM = 1, 1

_FORM = re.compile(rb"(\d{1,6}) (\d{1,6})")
_SEE = "(docs/operating.md, Upgrades)"


class ProtocolMismatch(RedisError):  # noqa: N818  (an error of a connection, like redis-py's own)
    """The processes at this Redis speak a protocol that this one does not, or the other way round."""


def own() -> str:
    """Return the key's value as this version writes it."""
    return f"{SPOKEN} {UNDERSTOOD_FROM}"


def is_outdated(stored: bytes | None) -> bool:
    """Return whether the key is missing, or speaks of an older version that this one may work beside.

    Raises:
        ProtocolMismatch: it speaks of one that this one may not work beside; says which, and what to do.

    """
    if stored is None:
        return True
    found = _FORM.fullmatch(stored)
    if found is None:
        raise ProtocolMismatch(
            f"{KEY} in Redis must be '<protocol> <oldest beside it>', such as '{own()}', got {stored[:40]!r}: a later "
            f"version wrote it, so upgrade this process, or somebody else did, so delete it {_SEE}"
        )
    spoken, understood_from = int(found[1]), int(found[2])
    if understood_from > SPOKEN:
        raise ProtocolMismatch(
            f"the processes at this Redis speak protocol {spoken} and understand {understood_from} and later; this one "
            f"speaks {SPOKEN}: upgrade it {_SEE}"
        )
    if spoken < UNDERSTOOD_FROM:
        raise ProtocolMismatch(
            f"the processes at this Redis speak protocol {spoken}; this one speaks {SPOKEN} and understands "
            f"{UNDERSTOOD_FROM} and later: upgrade by way of a version that understands both, or drain the queues, "
            f"stop the old processes and delete {KEY} {_SEE}"
        )
    return spoken < SPOKEN


def unreachable(what: str, error: Exception) -> QueueUnreachableError:
    """Return the error of a call that came to nothing: what it could not do, and why."""
    return (
        ProtocolError(str(error)) if isinstance(error, ProtocolMismatch) else QueueUnreachableError(f"{what}: {error}")
    )
