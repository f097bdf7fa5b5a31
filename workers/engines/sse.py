"""Parse server-sent events, as WHATWG HTML says ("Server-sent events", section 9.2.6). Knows nothing of OpenAI.

Lines end with LF, CR or CRLF, wherever a read cuts them. The stream may begin with a byte order mark. The `data` lines
of an event are joined by LF. Comments, `id`, `retry` and unknown fields are not part of an answer, and are dropped.
"""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
# An event has a token, or all tokens of an echoed prompt with their log probabilities. A larger event is not an answer.
MAX_EVENT_BYTES = 16 * 1024 * 1024
# What an empty line of data costs: an entry of a list.
_PLACE_BYTES = 8


class EventTooLargeError(ValueError):
    """An event, or a line, has no end."""


class Event(NamedTuple):
    """One event with data."""

    data: bytes
    kind: bytes = b""  # its `event` field; '' means "message"


class EventParser:
    """Joins lines to events."""

    def __init__(self) -> None:
        self._rest = bytearray()  # the start of a line whose end is not there yet
        self._is_after_cr = False
        self._is_first_line = True
        self._data: list[bytes] = []
        self._data_size = 0
        self._kind = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that end in this chunk.

        Raises:
            EventTooLargeError: an event is larger than any answer.

        """
        events: list[Event] = []
        for line in self._lines(chunk):
            if line:
                self._take(line)
                continue
            if self._data:
                events.append(Event(b"\n".join(self._data), self._kind))
            self._data, self._kind, self._data_size = [], b"", 0
        if (size := len(self._rest) + self._data_size) > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"an event must be at most {MAX_EVENT_BYTES} bytes, got {size} or more")
        return events

    def end(self) -> Event:
        """Return the rest of the stream, without an empty line behind it; by the standard it is no event."""
        if self._rest:
            self._take(bytes(self._rest))
        return Event(b"\n".join(self._data), self._kind)

    def _lines(self, chunk: bytes) -> list[bytes]:
        if self._is_after_cr and chunk[:1] == b"\n":
            chunk, self._is_after_cr = chunk[1:], False
        if not chunk:
            return []
        self._is_after_cr = chunk[-1:] == b"\r"
        lines = chunk.splitlines()  # of bytes: at LF, CR and CRLF, and nowhere else
        if chunk[-1:] in b"\r\n":
            lines.append(b"")
        if self._rest or len(lines) == 1:
            self._rest += lines[0]
            if len(lines) == 1:
                return []
            lines[0] = bytes(self._rest)
        self._rest = bytearray(lines.pop())
        if self._is_first_line:
            lines[0], self._is_first_line = lines[0].removeprefix(_BOM), False
        return lines

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_size += len(value) + _PLACE_BYTES
        elif name == b"event":
            self._kind = value.removeprefix(b" ")
