"""What operators order: pause.lua, resume.lua, drain.lua, move.lua."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from bitladder.errors import RequestError
from bitladder.queue.calls.claim import wake_key
from bitladder.queue.pauses import MAX_PAUSES, members
from bitladder.queue.run_script import Call
from bitladder.queue.untrusted import short
from bitladder.settings.sections import Settings

AUDIT = "bl:audit"
# Of what an order was given on, an entry of the log keeps so much: there are 10,000 of them.
MAX_ON_CHARS = 2000


class OrderRefusedError(RequestError):
    """An operator's order does not fit what there is now: more jobs than were counted, or nobody to serve them."""

    status = 409
    code = "order_refused"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit log says of an order."""

    operator: str
    what: str
    on: str
    reason: str

    def words(self) -> tuple[str, ...]:
        """Return the fields of an entry of the log, with their values."""
        return ("by", self.operator, "what", self.what, "on", short(self.on, MAX_ON_CHARS), "reason", self.reason)


class DrainOrder(msgspec.Struct, frozen=True, kw_only=True, rename={"operator": "by"}):
    """What a worker is to do: claim nothing more, and end, or stay idle (`keep`)."""

    keep: bool = False
    since: int = 0
    operator: str = ""
    reason: str = ""

    @classmethod
    def read(cls, text: bytes) -> DrainOrder | None:
        """Read an order; None: there is none, or another program has written it."""
        try:
            order = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return msgspec.structs.replace(order, operator=short(order.operator), reason=short(order.reason))


def pause_call(scope: str, for_s: float, note: Note) -> Call:
    """Build the call of pause.lua; 0 s: until it is resumed."""
    reason = members(note.operator, note.reason)
    return Call("pause", ["bl:paused"], [scope, math.ceil(for_s * 1000), reason, MAX_PAUSES, *note.words()])


def resume_call(settings: Settings, scope: str, note: Note) -> Call:
    """Build the call of resume.lua."""
    wakes = [wake_key(model, tier) for model, section in settings.models.items() for tier in section.ladder]
    return Call("resume", ["bl:paused", *wakes], [scope, *note.words()])


def drain_call(*, model: str, tier: str, worker: str, order: str, dry_run: bool, note: Note) -> Call:
    """Build the call of drain.lua; no order: it is taken back."""
    return Call("drain", ["rq:workers", "bl:drained"], [model, tier, worker, order, int(dry_run), *note.words()])


def move_call(moves: Sequence[tuple[str, str, str]]) -> Call:
    """Build the call of move.lua: id, queue and new queue of each job, those first that are to be first there."""
    return Call("move", [], [*chain.from_iterable(moves)])


def read_names(answer: Sequence[Any]) -> list[str]:
    """Read the answer of drain.lua: names of workers."""
    return sorted(short(name.decode(errors="replace")) for name in answer)
