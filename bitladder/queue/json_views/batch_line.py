"""A line of a batch's results, in the form of OpenAI's output and error files."""

from __future__ import annotations

import msgspec


class LineResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a line as it would have come over HTTP, an error's too."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line has no answer."""

    code: str | None
    message: str


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a line: a response, or an error."""

    id: str
    custom_id: str
    response: LineResponse | None
    error: LineError | None

    def encoded(self) -> bytes:
        """Return it as JSON, with the line's end."""
        return _encode(self) + b"\n"


_encode = msgspec.json.Encoder().encode
