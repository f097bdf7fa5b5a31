"""What the intake answers with. Headers are made safe here, and nowhere else.

Tiers, reasons and ids come from Redis, where a producer of RQ's or anybody else may have written them. A header holds
printable ASCII only: Starlette fails on other letters and uvicorn on line ends, each time somebody asks for that job.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from starlette import responses

# Ten of them fit into what a proxy keeps for an answer's head (nginx: one page).
MOST_HEADER_CHARS = 512
_PLAIN = "".join(map(chr, range(0x20, 0x7F)))


def header_text(text: str) -> str:
    """Return text that a header can carry: everything but printable ASCII as %XX of its UTF-8, the end cut off."""
    if not (text.isascii() and text.isprintable()):
        text = quote(text[:MOST_HEADER_CHARS], safe=_PLAIN, errors="replace")
    return text if len(text) <= MOST_HEADER_CHARS else f"{text[: MOST_HEADER_CHARS - 3]}..."


class Response(responses.Response):
    """An answer."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        super().init_headers({name: header_text(value) for name, value in (headers or {}).items()})


class EventStream(Response, responses.StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"
