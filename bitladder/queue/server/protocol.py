"""The protocol version of the processes at one Redis: the forms of records, messages and script calls (decisions/0011).

Every connection reads it first (sockets.py), so each process checks it at its start and whenever it connects again.
"""

from __future__ import annotations

import re

from redis.exceptions import RedisError

from bitladder.errors import ProtocolError, QueueUnreachableError
from bitladder.queue.server.refusals import refusal_of, refused

KEY = "bl:protocol"
# The protocol that this release writes, and the oldest one that it reads. A change of form that an older process would
# not understand increments SPOKEN; UNDERSTOOD_FROM follows once no such form is read any more.
SPOKEN, UNDERSTOOD_FROM = 1, 1

_FORM = re.compile(rb"(\d{1,6}) (\d{1,6})")
_SEE = "(docs/operating.md, Upgrades)"


class ProtocolMismatch(RedisError):  # noqa: N818  (an error of a connection, like redis-py's own)
    """The processes at this Redis speak a protocol that this one does not, or the other way round."""


def own() -> str:
    """Return the key's value as this release writes it."""
    return f"{SPOKEN} {UNDERSTOOD_FROM}"


def is_outdated(stored: bytes | None) -> bool:
    """Return whether the key is missing, or names an older protocol that this release works beside.

    Raises:
        ProtocolMismatch: it names a protocol that this release does not work beside.

    """
    if stored is None:
        return True
    match = _FORM.fullmatch(stored)
    if match is None:
        raise ProtocolMismatch(
            f"{KEY} in Redis must be '<protocol> <oldest beside it>', such as '{own()}', got {stored[:40]!r}: a later "
            f"version wrote it, so upgrade this process, or another program did, so delete it {_SEE}"
        )
    spoken, understood_from = int(match[1]), int(match[2])
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
    """Return the error of a call that failed: what could not be done, and why; or what to set, where that is known."""
    if isinstance(error, ProtocolMismatch):
        return ProtocolError(str(error))
    refusal = refusal_of(error)
    return QueueUnreachableError(refused(refusal, error) if refusal else f"{what}: {error}")
