"""An answer that is run anew after readers have seen some of it: what they have seen is not sent again.

The whole answer is compared with what earlier executions have sent, text by text, however it is cut into chunks. While
it is the same, it is held back. What lies behind is the rest of the stream. The moment it differs, it is another
answer, and its readers are told (docs/decisions/0018-a-lost-answer-is-run-anew-and-compared.md). No I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from bitladder.endpoints import Endpoint, Events

Fields = dict[str, Any]
# Texts that come in parts; all else comes whole. `content` and the others are those of a chat's delta.
_TEXTS = frozenset(("text", "content", "reasoning", "reasoning_content", "refusal"))
# An answer has one value of these, although each execution makes another one.
_HEAD = ("id", "created")
# Where something stands in an answer, not what.
_PLACES = frozenset(("index", "delta", "role"))


class _Sampling(msgspec.Struct, frozen=True):
    """What a request says of how its tokens are chosen."""

    temperature: float | None = None
    seed: int | None = None
    n: int | None = None


_decode_sampling = msgspec.json.Decoder(_Sampling).decode


def is_repeatable(endpoint: Endpoint, body: bytes) -> bool:
    """Return whether an engine that is asked again is likely to give the same answer: it has no chance, or a seed."""
    if endpoint.row.events is not Events.DATA:
        return False  # named events have ids and places of their own in them
    try:
        asked = _decode_sampling(body)
    except msgspec.DecodeError:
        return False
    return asked.n in (None, 1) and (asked.temperature == 0 or asked.seed is not None)


class DifferentAnswerError(Exception):
    """The answer is not the one that was sent before."""


class _Part(NamedTuple):
    """One value of an event, and where it stands."""

    kind: str
    value: Any
    fields: Fields
    name: str

    @property
    def is_text(self) -> bool:
        return self.name in _TEXTS and isinstance(self.value, str)


class Replay:
    """Compares an answer with what was sent of it."""

    def __init__(self, sent: Iterable[bytes]) -> None:
        """Read what was sent, chunk by chunk.

        Raises:
            DifferentAnswerError: it is nothing that an answer could be compared with.

        """
        self.head: Fields = {}
        self._sent: deque[tuple[str, Any]] = deque()  # what has not come again: texts in as few parts as possible
        self._at = 0  # so much of the first text has
        texts: list[str] = []
        for part in self._parts_of(sent):
            if part.is_text and texts and self._sent[-1][0] == part.kind:
                texts.append(part.value)
                continue
            self._join(texts)
            texts = [part.value] if part.is_text else []
            self._sent.append((part.kind, part.value))
        self._join(texts)

    @property
    def is_through(self) -> bool:
        """Whether all that was sent has come again."""
        return not self._sent

    def behind(self, chunk: bytes) -> bytes:
        """Return the events of a chunk that are behind what was sent, as parts of the same answer; b'' for none.

        Raises:
            DifferentAnswerError: it differs from what was sent.

        """
        try:
            events = list(_events(chunk))
        except DifferentAnswerError:
            if self.is_through:
                return chunk  # half of a surrogate pair, which no text has
            raise
        behind = [event | self.head for event in events if self._is_behind(event)]
        return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in behind)

    def _parts_of(self, sent: Iterable[bytes]) -> Iterator[_Part]:
        for chunk in sent:
            for event in _events(chunk):
                self.head = self.head or {name: event[name] for name in _HEAD if name in event}
                yield from _parts(event)

    def _join(self, texts: list[str]) -> None:
        if texts:
            self._sent[-1] = (self._sent[-1][0], "".join(texts))

    def _is_behind(self, event: Fields) -> bool:
        """Take out of an event what was sent; return whether there is more in it."""
        was_through = self.is_through
        for part in _parts(event):
            if self.is_through:
                return True
            if part.is_text:
                part.fields[part.name] = rest = self._text_behind(part)
                if rest:
                    return True
            elif self._sent.popleft() == (part.kind, part.value):
                del part.fields[part.name]
            else:
                raise DifferentAnswerError
        return was_through

    def _text_behind(self, part: _Part) -> str:
        kind, sent = self._sent[0]
        text, left = str(part.value), len(sent) - self._at if part.kind == kind else 0
        if not left or not sent.startswith(text[:left], self._at):
            raise DifferentAnswerError
        self._at += len(text)
        if self._at >= len(sent):
            self._sent.popleft()
            self._at = 0
        if text[left:] and self._sent:  # something else came here
            raise DifferentAnswerError
        return text[left:]


def _events(chunk: bytes) -> Iterator[Fields]:
    for line in chunk.split(b"\n\n"):
        if line:
            try:
                event = msgspec.json.decode(line.removeprefix(b"data: "))
            except msgspec.DecodeError:
                event = None
            if not isinstance(event, dict):
                raise DifferentAnswerError
            yield event


def _parts(event: Fields) -> Iterator[_Part]:
    """Yield what an event has of the answer, in the order in which an engine makes it."""
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            raise DifferentAnswerError
        delta = choice.get("delta")
        for fields in (delta, choice) if isinstance(delta, dict) else (choice,):
            for name, value in list(fields.items()):
                if value and name not in _PLACES:
                    yield _Part(f"{choice.get('index')} {name}", value, fields, name)
    if not choices and event.get("usage"):  # its counts may differ: how much of the prompt was cached
        yield _Part("usage", True, event, "usage")
