"""uvicorn's HTTP protocol with an end to everything that a client can make it wait for or keep.

uvicorn limits neither the size of a request's head nor the time it takes, and a byte now and then keeps an idle
connection open for ever. Bodies are bounded where they are read (gateway.py).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dispatcher.intake.problems import problem, problem_body
from dispatcher.sections import IntakeSettings

# Far above what clients send, cookies of strangers included.
MOST_HEADERS = 100
MOST_HEAD_BYTES = 32 * 1024


class HeadTooLargeError(Exception):
    """The request line and headers are larger than anybody needs."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by `bounded_by`."""

    limits: IntakeSettings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._in_head = False  # whether a request line or headers are on their way
        self._begun_now = False  # whether they began with the bytes that are being read
        self._head_bytes = 0  # of the head so far, without the bytes it began with
        self._is_head_too_large = False
        self._running: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.max_connections:
            self.app = _too_many_connections
        self._await_head(self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells only the request that came last; where others follow it in a pipeline, another one runs.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        _cancel(self._head_timer)
        _cancel(self._stall_timer)

    def data_received(self, data: bytes) -> None:
        self._begun_now = False
        super().data_received(data)
        if self._in_head and not self._begun_now:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._begun_now = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.headers) > MOST_HEADERS or size > MOST_HEAD_BYTES:
            self._is_head_too_large = True
            raise HeadTooLargeError  # stops the parser; uvicorn's data_received then calls send_400_response
        self._in_head = False
        _cancel(self._head_timer)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # no pipelined request follows
            self._await_head(self.timeout_keep_alive + self.limits.header_timeout_s)

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
        message = f"a request may have {MOST_HEADERS} headers and {MOST_HEAD_BYTES} bytes before its body"
        self._refuse(431, message, "headers_too_large")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer and close; only close where an answer would end up inside another one."""
        if self._may_answer():
            body = problem_body(status, message, code)
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _may_answer(self) -> bool:
        if self.transport.is_closing() or self.pipeline:
            return False
        if self.cycle is None or self.cycle.response_complete:
            return True
        return not self._in_head and not self.cycle.response_started


def bounded_by(settings: IntakeSettings) -> type[BoundedProtocol]:
    """Return the protocol with these limits; uvicorn makes one of it per connection."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": settings})


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": "1", "Connection": "close"}
    answer = problem(503, "too many connections are open", "too_many_connections", headers=headers)
    await answer(scope, receive, send)
