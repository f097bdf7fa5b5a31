"""What the intake answers with. Headers are made safe here, and nowhere else.

Tiers, reasons and ids come from Redis, where any producer may have written them. A header holds printable ASCII only:
Starlette fails on other letters and uvicorn on line ends, each time that job is requested.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from pydantic import BaseModel
from starlette import responses
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

# Ten of them fit into what a proxy keeps for an answer's head (nginx: one page).
_MAX_HEADER_CHARS = 512
_PLAIN = "".join(map(chr, range(0x20, 0x7F)))


def _header_text(text: str) -> str:
    """Return text that a header can carry: everything but printable ASCII as %XX of its UTF-8, the end cut off."""
    if not (text.isascii() and text.isprintable()):
        text = quote(text[:_MAX_HEADER_CHARS], safe=_PLAIN, errors="replace")
    return text if len(text) <= _MAX_HEADER_CHARS else f"{text[: _MAX_HEADER_CHARS - 3]}..."


class Response(responses.Response):
    """An answer, which no cache may keep: it is for one client, and differs a moment later."""

    cache_control = "no-store"

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        merged = {"Cache-Control": self.cache_control} | dict(headers or {})
        super().init_headers({name: _header_text(value) for name, value in merged.items()})


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; `content` is anything that msgspec encodes, with settings in it."""
    return Response(_encode(content), status, headers, media_type="application/json")


def _fields(value: Any) -> object:  # noqa: ANN401  (what msgspec does not know)
    if isinstance(value, BaseModel):
        return value.model_dump()
    raise NotImplementedError(type(value).__name__)


_encode = msgspec.json.Encoder(enc_hook=_fields).encode


class ByteStream(Response, responses.StreamingResponse):
    """Bytes of a known number, sent as they are read."""

    def __init__(self, parts: AsyncIterator[bytes], length: int, status: int, headers: Mapping[str, str]) -> None:
        sized = {**headers, "Content-Length": str(length)}
        super().__init__(parts, status, sized, media_type="application/octet-stream")


class LineStream(Response, responses.StreamingResponse):
    """Lines of JSON, sent as they are read: how many there are is not known before."""

    media_type = "application/jsonl"


# A comment: clients ignore it, and proxies see that the answer goes on.
HEARTBEAT = b": heartbeat\n\n"


class EventStream(Response, responses.StreamingResponse):
    """Server-sent events, with a heartbeat whenever there was no event for `heartbeat_s`; 0: no heartbeat.

    Each part holds whole events. No proxy may buffer them: nginx obeys X-Accel-Buffering, and compression no-transform.
    `on_close` is called once the answer has ended, however it did: a client may leave before the first event is asked
    for, and then nothing in `events` has run.
    """

    media_type = "text/event-stream"
    cache_control = "no-cache, no-store, no-transform"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        headers: dict[str, str],
        *,
        heartbeat_s: float,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(events, headers=headers | {"X-Accel-Buffering": "no"})
        self._events, self._heartbeat_s, self._on_close = events, heartbeat_s, on_close
        self._written_s: float | None = None  # when the last part was; None: a part is being written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._on_close:
                self._on_close()
            await self._events.aclose()

    async def stream_response(self, send: Send) -> None:
        """Send the events; Starlette calls it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._written_s = asyncio.get_running_loop().time()
        # A task per stream: a timeout per event would cost more than most events do.
        beating = asyncio.create_task(self._beat(send)) if self._heartbeat_s else None
        try:
            async for events in self._events:
                await self._write(send, events)
        finally:
            if beating:
                beating.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, events: object) -> None:
        self._written_s = None
        await send({"type": "http.response.body", "body": events, "more_body": True})
        self._written_s = asyncio.get_running_loop().time()

    async def _beat(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            quiet_s = 0.0 if self._written_s is None else loop.time() - self._written_s
            if quiet_s >= self._heartbeat_s:
                await self._write(send, HEARTBEAT)
                quiet_s = 0.0
            await asyncio.sleep(self._heartbeat_s - quiet_s)
