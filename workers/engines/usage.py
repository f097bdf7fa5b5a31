"""Token counts as engines report them; in a stream only when the request asks for them."""

from __future__ import annotations

from typing import Any

import msgspec

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MAX_TOKENS = 2**53
# OpenAI's older APIs call them so; its newer ones, and Anthropic's, otherwise.
_NAMES = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))


def asking_usage(body: bytes) -> tuple[bytes, bool]:
    """Return the body of a streamed request, asking for token counts; and whether the client itself asked for them.

    Where the job says `stream` but its body does not (RQ's producers write both), the job counts.
    """
    try:
        fields = _read(body)
        options: Any = msgspec.json.decode(fields.get("stream_options", b"null"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body, True  # the engine answers what is wrong with it
    if not isinstance(options, dict | None):
        return body, True
    is_asked = bool(options and options.get("include_usage"))
    if not is_asked:
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode((options or {}) | {"include_usage": True}))
    if bytes(fields.get("stream", b"")) != b"true":
        fields["stream"] = msgspec.Raw(b"true")
    elif is_asked:
        return body, True
    return msgspec.json.encode(fields), is_asked


def tokens_of(usage: object) -> tuple[int, int]:
    """Return the tokens of prompt and answer from `usage`, by either of their names; 0 for a count that is missing."""
    fields = usage if isinstance(usage, dict) else {}
    read, written = (_count(fields, names) for names in _NAMES)
    return read, written


def _count(fields: dict[str, Any], names: tuple[str, ...]) -> int:
    counts = (fields.get(name) for name in names)
    return next((count for count in counts if isinstance(count, int) and 0 <= count < _MAX_TOKENS), 0)


def streaming(body: bytes) -> bytes:
    """Return the body of a request of a job that streams: where the body does not say so, the job counts."""
    try:
        fields = _read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body  # the engine answers what is wrong with it
    if bytes(fields.get("stream", b"")) == b"true":
        return body
    return msgspec.json.encode(fields | {"stream": msgspec.Raw(b"true")})
