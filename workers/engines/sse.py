"""Read what matters of an OpenAI token stream while it passes: text, usage, errors."""

from __future__ import annotations

from typing import Any

import msgspec

from workers.engines.logprobs import has_bare_nan


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None  # whatever the engine says


_decode = msgspec.json.Decoder(_Chunk).decode


class StreamReader:
    """Splits bytes into events and keeps the sums."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.is_done = False
        self.is_cut = False  # a choice ended because its tokens ran out
        self.is_corrupted = False  # a log probability was no number
        self.error: bytes | None = None
        self._rest = b""
        self._has_usage = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the complete events in `data` and what came before, without [DONE]."""
        *events, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        return [event + b"\n\n" for event in events if self._read(event)]

    def _read(self, event: bytes) -> bool:
        payload = event.removeprefix(b"data:").strip()
        if payload == b"[DONE]":
            self.is_done = True
            return False
        try:
            chunk = _decode(payload)
        except msgspec.DecodeError:
            self.is_corrupted = self.is_corrupted or has_bare_nan(payload)
            return bool(payload) and not self.is_corrupted
        self.error = msgspec.json.encode(chunk.error) if chunk.error else self.error
        if chunk.usage:
            self._has_usage = True
            self.prompt_tokens = chunk.usage.prompt_tokens
            self.completion_tokens = chunk.usage.completion_tokens or 0
        elif not self._has_usage:
            # Without stream_options.include_usage nobody says how many: engines send a piece per token.
            self.completion_tokens += any(_text(choice) for choice in chunk.choices)
        for choice in chunk.choices:
            self.texts.append(_text(choice))
            self.is_cut = self.is_cut or choice.finish_reason == "length"
        return self.error is None


def _text(choice: _Choice) -> str:
    return choice.text or (choice.delta.content if choice.delta else None) or ""
