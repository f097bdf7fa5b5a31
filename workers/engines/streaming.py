"""Read an OpenAI token stream: the chunks that its client gets, and the answer that they make up.

Clients understand less of server-sent events than engines may write. OpenAI's own libraries take every event for a
chunk: an `id`, a `retry` or an `event` without data is an empty chunk to them, which is not JSON. Many other clients do
not understand several lines of data. So each chunk is sent as one line of data with its original bytes, and nothing
else is sent.
"""

from __future__ import annotations

from typing import Any

from workers.engines import lenient
from workers.engines.assembly import Assembly, Fields
from workers.engines.base import Answer
from workers.engines.errors import EngineCorruptedError, EngineFaultError
from workers.engines.logprobs import is_bad
from workers.engines.replies import broken_off, read_events
from workers.engines.sse import Event, EventParser
from workers.engines.usage import tokens_of

_DONE = b"[DONE]"
# vLLM's finish reasons for an answer that was broken off.
BROKEN = ("error", "abort")


class StreamReader:
    """Reads one stream; `is_echo`: it begins with the prompt; `shows_usage`: its client asked for the token counts."""

    def __init__(self, *, is_echo: bool = False, shows_usage: bool = True) -> None:
        self.has_tokens = False
        self.refusal: Answer | None = None  # the engine refused the request as wrong: nothing more comes
        self._is_echo, self._shows_usage = is_echo, shows_usage
        self._parser, self._assembly = EventParser(), Assembly()
        self._is_done = False
        self._usage: object = None
        self._counted = 0
        self._seen: set[object] = set()  # choices that had log probabilities

    def feed(self, data: bytes) -> list[bytes]:
        """Return the chunks that end in these bytes, as events.

        Raises:
            EngineError: the engine broke the stream off, or the stream cannot be read.

        """
        events = read_events(self._parser, data)
        return [chunk for event in events if (chunk := self._chunk_of(event))]

    def answer(self, ttft_s: float | None, unsent: bytes = b"") -> Answer:
        """Return the whole answer once the stream has ended.

        Raises:
            EngineFaultError: it ended early, or with nothing in it.

        """
        if not self._is_done and not self._parser.end().data.startswith(_DONE):
            raise EngineFaultError("the stream ended early: connection closed")
        if not self._assembly.has_choices:
            raise EngineFaultError("the stream ended without an answer")
        prompt_tokens, completion_tokens = tokens_of(self._usage)
        return Answer(
            status=200,
            body=self._assembly.body(),
            ttft_s=ttft_s,
            prompt_tokens=prompt_tokens,
            # Where the engine does not report usage: engines send a chunk for each token.
            completion_tokens=completion_tokens if self._usage else self._counted,
            unsent=unsent,
        )

    def _chunk_of(self, event: Event) -> bytes | None:
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
                self._check_choice(choice)
                has_tokens = has_tokens or _has_tokens(choice)
        self._counted += has_tokens
        self.has_tokens = self.has_tokens or has_tokens
        self._assembly.add(chunk)

    def _check_choice(self, choice: Fields) -> None:
        if choice.get("finish_reason") in BROKEN:
            raise EngineFaultError(f"the stream ended early: {choice['finish_reason']}")
        if choice.get("logprobs"):
            index = choice.get("index")
            if is_bad(choice, is_echo=self._is_echo and index not in self._seen):
                raise EngineCorruptedError("the stream has a log probability of NaN or infinity")
            self._seen.add(index)


def _read(event: Event, payload: bytes) -> tuple[Fields | None, bytes]:
    """Return an event's chunk, and its JSON; None for an event that is no chunk.

    Raises:
        EngineFaultError: the event should be a chunk and cannot be read: tokens would be missing.

    """
    try:
        value, payload = lenient.read(payload)
    except ValueError:
        if payload.startswith(b"{") and event.kind in (b"", b"message"):
            raise EngineFaultError(f"the stream has a chunk that is not JSON: {payload[:100]!r}") from None
        return None, payload
    if not isinstance(value, dict):
        return None, payload
    if value.get("choices") is None and value.get("usage"):
        value["choices"] = []
    return (value if isinstance(value.get("choices"), list) or _error_in(event, value, payload) else None), payload


def _error_in(event: Event, chunk: Fields | None, payload: bytes) -> Any:  # noqa: ANN401  (whatever the engine says)
    """Return the error in an event; None where there is none."""
    fields = chunk or {}
    if error := fields.get("error"):
        return error
    if event.kind == b"error" or fields.get("object") == "error":
        return fields or payload[:500].decode(errors="replace") or "an event of type error"
    return None


def _has_tokens(choice: Fields) -> bool:
    """Return whether a part of a choice has some of the answer: a chat's first chunk has only the role."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for name, value in delta.items() if name != "role")
    return bool(choice.get("text"))
