"""The events of one response: what its engine streams, numbered and completed. No I/O.

Numbers follow from what is stored alone: whichever intake reads a response's events, and whenever, each of them has the
same `sequence_number`. So a client reads on behind the last one that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from bitladder.contract import Outcome
from dispatcher.openai.responses.record import StoredResponse
from dispatcher.openai.responses.schema import Fields, complete_item, complete_part

# The intake sends these itself: the first ones before an engine has the job, the last one once its outcome is stored.
_FIRST = ("response.created", "response.queued")
_LAST = ("response.completed", "response.incomplete", "response.failed")
# The last event by the response's status. None is called after a cancellation: the response's own status says it.
_LAST_OF = {"completed": "response.completed", "incomplete": "response.incomplete", "cancelled": "response.incomplete"}


class EventNumbers:
    """Makes the events of one response, of which those up to the number `after` are left out."""

    def __init__(self, response: StoredResponse, after: int = -1) -> None:
        self._response, self._after = response, after
        self._next = 0
        self._answer: Fields = {}  # as the engine's last event has it

    def first(self) -> bytes:
        """Return the events that are sent before anything has come."""
        status = "queued" if self._response.is_background else "in_progress"
        names = _FIRST if self._response.is_background else _FIRST[:1]
        snapshot = self._response.as_json(status)
        return b"".join(self._event({"type": name, "response": snapshot}) for name in names)

    def of_chunk(self, data: bytes) -> bytes:
        """Return the events of a chunk of the engine's stream."""
        return b"".join(self._completed(event) for event in _read(data))

    def last(self, outcome: Outcome) -> bytes:
        """Return the events that end the stream."""
        response = self._response.ended(outcome, self._answer)
        name = _LAST_OF.get(str(response["status"]), "response.failed")
        return self._event({"type": name, "response": response}) + b"data: [DONE]\n\n"

    def error(self, message: str, code: str) -> bytes:
        """Return an event that ends the stream though the response goes on, or cannot be read."""
        # It is no event of the response: who reads on asks for what follows the one before it.
        event = {"type": "error", "sequence_number": self._next, "code": code, "message": message, "param": None}
        return _encoded(event)

    def _completed(self, event: Fields) -> bytes:
        kind = event.get("type")
        if kind in _FIRST:
            return b""
        if kind in _LAST:
            self._answer = event["response"] if isinstance(event.get("response"), dict) else {}
            return b""
        if isinstance(event.get("response"), dict):
            event["response"] = self._response.as_json("in_progress", event["response"])
        if "item" in event:
            place = event.get("output_index")
            event["item"] = complete_item(event["item"], self._response.id, place if isinstance(place, int) else 0)
        if "part" in event:
            event["part"] = complete_part(event["part"])
        if isinstance(kind, str) and kind.startswith("response.output_text.") and "logprobs" in event:
            event["logprobs"] = event["logprobs"] or []
        return self._event(event)

    def _event(self, event: Fields) -> bytes:
        number, self._next = self._next, self._next + 1
        return b"" if number <= self._after else _encoded(event | {"sequence_number": number})


def _encoded(event: Fields) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event))


def _read(data: bytes) -> Iterator[Fields]:
    """Yield the events of a chunk; what is no object with a type is no event of a response."""
    for line in data.split(b"\n"):
        if line.startswith(b"data: {"):
            event: Any = msgspec.json.decode(line[6:])
            if isinstance(event, dict) and isinstance(event.get("type"), str):
                yield event
