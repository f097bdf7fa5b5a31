"""Read an OpenAI token stream while it passes: what its client gets of it, and what answer it makes up.

Clients read less of server-sent events than engines may write. OpenAI's own libraries take every event for a chunk:
an `id`, a `retry` or an `event` without data is an empty chunk to them, which is no JSON, and several lines of data are
one line too many for many others. So a chunk goes on as one line of data, with the bytes it came in, and nothing else
does.
"""

from __future__ import annotations

from typing import Any

from workers.engines import lenient
from workers.engines.assembly import Assembly, Fields
from workers.engines.base import Answer
from workers.engines.errors import EngineCorruptedError, EngineFaultError
from workers.engines.logprobs import is_bad
from workers.engines.replies import broken_off
from workers.engines.sse import Event, EventParser, EventTooLargeError
from workers.engines.usage import tokens_of

_DONE = b"[DONE]"
# vLLM's words for an answer that was broken off.
BROKEN = ("error", "abort")


class StreamReader:
    """Follows one stream; `is_echo`: it begins with the prompt; `shows_usage`: its client asked for the tokens."""

    def __init__(self, *, is_echo: bool = False, shows_usage: bool = True) -> None:
        self.has_tokens = False
        self.refusal: Answer | None = None  # the request was wrong: nothing more comes
        self._is_echo, self._shows_usage = is_echo, shows_usage
        self._parser, self._assembly = EventParser(), Assembly()
        self._is_done = False
        self._usage: object = None
        self._counted = 0
        self._seen: set[object] = set()  # choices that had log probabilities

    def feed(self, data: bytes) -> list[bytes]:
        """Return the chunks that end in these bytes, as events.

        Raises:
            EngineError: the engine broke it off, or what it says cannot be.

        """
        try:
            events = self._parser.feed(data)
        except EventTooLargeError as error:
            raise EngineFaultError(f"the stream cannot be read: {error}") from error
        return [chunk for event in events if (chunk := self._passed_on(event))]

    def answer(self, ttft_s: float | None, unsent: bytes = b"") -> Answer:
        """Return the whole answer once the stream has ended.

        Raises:
            EngineFaultError: it ended before the engine said so, or with nothing in it.

        """
        if not self._is_done and not self._parser.end().data.startswith(_DONE):
            raise EngineFaultError("the stream ended early: connection closed")
        if not self._assembly.has_choices:
            raise EngineFaultError("the stream ended without an answer")
        read, written = tokens_of(self._usage)
        return Answer(
            status=200,
            body=self._assembly.body(),
            ttft_s=ttft_s,
            prompt_tokens=read,
            # Nobody says how many where the engine does not count: engines send a chunk per token.
            completion_tokens=written if self._usage else self._counted,
            unsent=unsent,
        )

    def _passed_on(self, event: Event) -> bytes | None:
        payload = event.data.replace(b"\n", b" ").strip()
        if self._is_done or self.refusal or payload.startswith(_DONE):
            self._is_done = True
            return None
        chunk, payload = _read(event, payload)
        if error := _error_in(event, chunk, payload):
            self.refusal = broken_off(error, has_begun=self.has_tokens)
            return None
        if chunk is None:
            return None
        self._note(chunk)
        is_usage_alone = not chunk["choices"] and bool(chunk.get("usage"))
        return None if is_usage_alone and not self._shows_usage else b"data: " + payload + b"\n\n"

    def _note(self, chunk: Fields) -> None:
        self._usage = chunk.get("usage") or self._usage
        has_tokens = False
        for choice in chunk["choices"]:
            if isinstance(choice, dict):
                self._look_at(choice)
                has_tokens = has_tokens or _has_tokens(choice)
        self._counted += has_tokens
        self.has_tokens = self.has_tokens or has_tokens
        self._assembly.add(chunk)

    def _look_at(self, choice: Fields) -> None:
        if choice.get("finish_reason") in BROKEN:
            raise EngineFaultError(f"the stream ended early: {choice['finish_reason']}")
        if choice.get("logprobs"):
            index = choice.get("index")
            if is_bad(choice, is_echo=self._is_echo and index not in self._seen):
                raise EngineCorruptedError("the stream has a log probability that is no number")
            self._seen.add(index)


def _read(event: Event, payload: bytes) -> tuple[Fields | None, bytes]:
    """Return an event's chunk, and its JSON; None where it is none.

    Raises:
        EngineFaultError: it should be one: tokens would be missing.

    """
    try:
        value, payload = lenient.read(payload)
    except ValueError:
        if payload.startswith(b"{") and event.kind in (b"", b"message"):
            raise EngineFaultError(f"the stream has a chunk that is no JSON: {payload[:100]!r}") from None
        return None, payload
    if not isinstance(value, dict):
        return None, payload
    if value.get("choices") is None and value.get("usage"):
        value["choices"] = []
    return (value if isinstance(value.get("choices"), list) or _error_in(event, value, payload) else None), payload


def _error_in(event: Event, chunk: Fields | None, payload: bytes) -> Any:  # noqa: ANN401  (whatever the engine says)
    """Return the error that an event tells of; None where it tells of none."""
    fields = chunk or {}
    if found := fields.get("error"):
        return found
    if event.kind == b"error" or fields.get("object") == "error":
        return fields or payload[:500].decode(errors="replace") or "an event of type error"
    return None


def _has_tokens(choice: Fields) -> bool:
    """Return whether a part of a choice holds some of the answer: a chat's first chunk has the role only."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for name, value in delta.items() if name != "role")
    return bool(choice.get("text"))
