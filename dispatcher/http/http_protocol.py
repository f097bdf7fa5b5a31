"""uvicorn's HTTP protocol, with limits on everything that a client can make it wait for or keep in memory.

uvicorn limits neither the size of a request's head nor the time it takes. A byte now and then keeps an idle connection
open for ever. The fields behind a chunked body (trailers, RFC 9110, 6.5) join the headers, in any number, after the
headers have been checked. Bodies are limited where they are read (request_parts.py).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import httptools
import structlog
from starlette.types import Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bitladder.queue.json_views.problem import problem_body
from bitladder.settings.intake_section import IntakeSettings
from dispatcher.http.closing import Closing
from dispatcher.http.problems import problem

log = structlog.get_logger()
# Far above what clients send, other sites' cookies included.
_MAX_HEADERS = 100
_MAX_HEAD_BYTES = 32 * 1024
# Where the maximum of connections is open, one that was idle for at least so long is closed for a new one.
_MIN_IDLE_S = 1.0
# More bytes than any answer has.
_ENDLESS = 2**62
# When the intake ends, a new connection has so long to send its first request.
_FIRST_HEAD_S = 0.5


class _HeadTooLargeError(Exception):
    """The request line and headers are above the limit."""


class _TunnelError(Exception):
    """CONNECT: the client takes the intake for a proxy."""


class _BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by `protocol_with`."""

    limits: IntakeSettings
    closing: Closing
    idle: dict[_BoundedProtocol, float]  # idle connections of this server, and since when; the oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._in_head = False  # whether a request line or headers are on their way
        self._in_body = False  # whether a body or its trailers are on their way
        self._wants_upgrade = False  # whether the head asked for another protocol
        self._made_progress = False  # whether the data being read began a request, ended a head or was of a body
        self._idle_bytes = 0  # read without progress: of a head, of a chunk's line, of trailers, or blank lines
        self._is_head_too_large = False
        self._running: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.max_connections and not self._close_oldest_idle():
            self.app = _too_many_connections
        self._await_head(self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn notifies only the request that came last; in a pipeline, an earlier one may be running.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.idle.pop(self, None)
        _cancel(self._head_timer)
        _cancel(self._stall_timer)

    def shutdown(self) -> None:
        """Close the connection if it is idle; a request that has begun, or is arriving, is answered first."""
        if self.cycle is None and not self._in_head:
            self._await_head(_FIRST_HEAD_S)
        elif not self._in_head:
            super().shutdown()

    def _close_oldest_idle(self) -> bool:
        """Close the connection that has been idle for longest, if it was for MIN_IDLE_S; return whether it was."""
        oldest = next(iter(self.idle), None)
        if oldest is None or self.loop.time() - self.idle[oldest] < _MIN_IDLE_S:
            return False
        del self.idle[oldest]
        oldest.transport.close()
        return True

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._made_progress = False
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("the request is not HTTP/1.1")
            return
        self._idle_bytes = 0 if self._made_progress else self._idle_bytes + len(data)
        if self._idle_bytes > _MAX_HEAD_BYTES:
            self._refuse_head()

    def _parse(self, data: bytes) -> None:
        """Parse data; a request that offers to upgrade the protocol is served as if it did not.

        RFC 9110, 7.8: a server may ignore Upgrade. The parser cannot: it ends the request at its head, and takes the
        body for the other protocol's. So a new parser reads the head again, without the offer.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._plain_head() + data[upgrade.args[0] :]
                self._wants_upgrade = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            else:
                return

    def _plain_head(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._made_progress = True
        self._in_body = False
        self.idle.pop(self, None)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers are ignored: they come after the headers have been checked
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.headers) > _MAX_HEADERS or size > _MAX_HEAD_BYTES:
            self._is_head_too_large = True
            raise _HeadTooLargeError  # stops the parser; data_received then calls send_400_response
        if self.parser.get_method() == b"CONNECT":
            raise _TunnelError
        self._wants_upgrade = self.parser.should_upgrade()
        if self._wants_upgrade:
            return
        self._in_head = False
        self._in_body = self._made_progress = True
        _cancel(self._head_timer)
        super().on_headers_complete()
        if self.closing.is_draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._made_progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._wants_upgrade:
            return
        self._in_body = False
        super().on_message_complete()
        if self.cycle.response_complete:  # it was answered before its body had arrived
            self._await_next()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, _unchunked(cycle, app) if cycle.scope["http_version"] == "1.0" else app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.cycle.response_complete or self.transport.is_closing():  # a pipelined request follows, or none
            return
        if self._in_body:
            self._await_head(self.limits.body_timeout_s)
        else:
            self._await_next()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.limits.stall_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stall_timer)

    def send_400_response(self, msg: str) -> None:
        if self._is_head_too_large:
            self._refuse_head()
        else:
            self._refuse(400, msg, "invalid_request")

    def _await_next(self) -> None:
        self.idle[self] = self.loop.time()
        self._await_head(self.timeout_keep_alive + self.limits.header_timeout_s)

    def _await_head(self, timeout_s: float) -> None:
        _cancel(self._head_timer)
        self._head_timer = self.loop.call_later(timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._in_head:
            limit_s = self.limits.header_timeout_s
            self._refuse(408, f"the headers must arrive within {limit_s:g} s", "request_timeout")
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        message = f"a request may have {_MAX_HEADERS} headers and {_MAX_HEAD_BYTES} bytes before and behind its body"
        self._refuse(431, message, "headers_too_large")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer and close; only close where the answer would be sent inside another one."""
        if self._may_answer():
            body = problem_body(status, message, code)
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _may_answer(self) -> bool:
        if self.transport.is_closing() or self.pipeline:
            return False
        if self.cycle is None or self.cycle.response_complete:
            return not self._in_body  # a request that was answered before its body had ended is not answered twice
        return not self._in_head and not self.cycle.response_started


def protocol_with(settings: IntakeSettings, closing: Closing) -> type[_BoundedProtocol]:
    """Return the protocol of one server, with these limits; uvicorn makes an instance per connection."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": settings, "closing": closing, "idle": {}})


def _unchunked(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """Return the application for a client of HTTP/1.0, which knows no chunks: the end of the connection ends a stream.

    uvicorn would send it chunks.
    """

    async def with_plain_streams(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            if message["type"] == "http.response.start":
                cycle.chunked_encoding = False
            else:  # uvicorn holds parts against the length that was declared: here each is as long as it is
                cycle.expected_content_length = _ENDLESS if message.get("more_body") else len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plainly)  # type: ignore[arg-type]  # uvicorn's and Starlette's words for the same

    return with_plain_streams  # type: ignore[return-value]  # as above


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    log.warning("request refused", status=503, code="too_many_connections")
    headers = {"Retry-After": "1", "Connection": "close"}
    answer = problem(503, "too many connections are open", "too_many_connections", headers=headers)
    await answer(scope, receive, send)
