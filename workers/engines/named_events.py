"""Read a stream of named events, as /v1/responses and /v1/messages have them: what its client gets, and the answer.

An event's name stands in its data too, as `type`: clients may read either. So both are sent, and nothing else. A stream
of a response ends with the whole response; a message is put together of its parts.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bitladder.endpoints import Endpoint
from workers.engines import lenient
from workers.engines.assembly import MAX_TEXT, Fields
from workers.engines.base import Answer
from workers.engines.errors import EngineCorruptedError, EngineFaultError
from workers.engines.logprobs import has_bad_token
from workers.engines.replies import broken_off, read_events
from workers.engines.sse import Event, EventParser
from workers.engines.usage import tokens_of

_NAME = re.compile(r"[\w.]{1,80}")
# What each kind of delta adds to, and under which name it brings it.
_TEXTS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "input"),
}


class _ResponseAssembly:
    """The answer that a response's last event has."""

    def __init__(self) -> None:
        self._response: Fields = {}

    def add(self, event: Fields) -> None:
        """Add one event."""
        if isinstance(response := event.get("response"), dict):
            self._response = response

    @property
    def usage(self) -> object:
        return self._response.get("usage")

    def body(self) -> bytes:
        """Return the answer as JSON; empty where it is too large to be kept."""
        body = lenient.write(self._response)
        return body if len(body) <= 2 * MAX_TEXT else b""


class _MessageAssembly:
    """Puts a message together of its events."""

    def __init__(self) -> None:
        self._message: Fields = {}
        self._blocks: dict[int, Fields] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._size = 0

    @property
    def usage(self) -> object:
        return self._message.get("usage")

    def add(self, event: Fields) -> None:
        """Add one event."""
        if isinstance(message := event.get("message"), dict):
            self._message = message
        index, block, delta = event.get("index"), event.get("content_block"), event.get("delta")
        if isinstance(index, int):
            if isinstance(block, dict):
                self._blocks[index] = block
            if isinstance(delta, dict):
                self._add_delta(index, delta)
        elif isinstance(delta, dict):
            self._message |= delta
        if isinstance(usage := event.get("usage"), dict):
            old = self._message.get("usage")
            self._message["usage"] = (old if isinstance(old, dict) else {}) | usage

    def body(self) -> bytes:
        """Return the answer as JSON; empty where it is too large to be kept."""
        if self._size > MAX_TEXT:
            return b""
        for (index, field), parts in self._texts.items():
            text = lenient.sound("".join(parts))
            self._blocks.setdefault(index, {})[field] = _json(text) if field == "input" else text
        content = [self._blocks[index] for index in sorted(self._blocks)]
        whole = {name: value for name, value in self._message.items() if value is not None}
        return lenient.write(whole | {"content": content})

    def _add_delta(self, index: int, delta: Fields) -> None:
        source, field = _TEXTS.get(str(delta.get("type")), ("", ""))
        text = delta.get(source)
        if isinstance(text, str) and self._size <= MAX_TEXT:
            self._texts.setdefault((index, field), []).append(text)
            self._size += len(text)


class NamedReader:
    """Reads one stream of a route."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.has_tokens = False
        self.refusal: Answer | None = None  # the engine refused the request as wrong: nothing more comes
        self._ends = endpoint.row.ends
        self._parser = EventParser()
        self._assembly = _ResponseAssembly() if endpoint is Endpoint.RESPONSES else _MessageAssembly()
        self._is_done = False
        self._counted = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that end in these bytes.

        Raises:
            EngineError: the engine broke the stream off, or the stream cannot be read.

        """
        events = read_events(self._parser, data)
        return [chunk for event in events if (chunk := self._chunk_of(event))]

    def answer(self, ttft_s: float | None, unsent: bytes = b"") -> Answer:
        """Return the whole answer once the stream has ended.

        Raises:
            EngineFaultError: it ended early.

        """
        if not self._is_done:
            raise EngineFaultError("the stream ended early: connection closed")
        prompt_tokens, completion_tokens = tokens_of(self._assembly.usage)
        return Answer(
            status=200,
            body=self._assembly.body(),
            ttft_s=ttft_s,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens or self._counted,
            unsent=unsent,
        )

    def _chunk_of(self, event: Event) -> bytes | None:
        if self._is_done or self.refusal:
            return None
        value, payload = _read(event)
        name = value.get("type") or event.kind.decode(errors="replace")
        is_named = isinstance(name, str) and bool(_NAME.fullmatch(name))
        if name == "error" or (value.get("error") and not is_named):
            # An error of a response has its fields beside `type`.
            self.refusal = broken_off(value.get("error") or {**value, "type": ""}, has_begun=self.has_tokens)
        if not is_named or self.refusal:
            return None  # [DONE], or what is no event of this API
        self._note(name, value)
        return b"event: %s\ndata: %s\n\n" % (name.encode(), payload)

    def _note(self, name: str, value: Fields) -> None:
        if name == "response.failed":
            response = value.get("response")
            error = response.get("error") if isinstance(response, dict) else None
            broken_off(error or {"message": "the response failed"}, has_begun=True)
        if name.endswith("delta") and name != "message_delta":
            self.has_tokens = True
            self._counted += 1
            if has_bad_token(value.get("logprobs")):
                raise EngineCorruptedError("the stream has a log probability of NaN or infinity")
        self._assembly.add(value)
        self._is_done = name in self._ends


def _read(event: Event) -> tuple[Fields, bytes]:
    """Return an event's fields, and its JSON in one line.

    Raises:
        EngineFaultError: it should be an event and cannot be read: tokens would be missing.

    """
    payload = event.data.replace(b"\n", b" ").strip()
    try:
        value: Any
        value, payload = lenient.read(payload)
    except ValueError:
        if payload.startswith(b"{"):
            raise EngineFaultError(f"the stream has an event that is not JSON: {payload[:100]!r}") from None
        value = {"error": payload[:500].decode(errors="replace")} if event.kind == b"error" else {}
    return value if isinstance(value, dict) else {}, payload


def _json(text: str) -> Any:  # noqa: ANN401  (what the model wrote)
    """Return the input of a tool; as text where it was cut."""
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        return text
