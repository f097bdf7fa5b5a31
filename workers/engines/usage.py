"""Token counts as engines report them; in a stream only when the request asks for them."""

from __future__ import annotations

from typing import Any

import msgspec

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MAX_TOKENS = 2**53


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
    """Return the tokens of prompt and answer from `usage`; 0 for a count that is missing."""
    fields = usage if isinstance(usage, dict) else {}
    counts = [fields.get(name) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) and 0 <= count < _MAX_TOKENS else 0 for count in counts)
    return read, written
