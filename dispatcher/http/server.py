"""uvicorn's server with a graceful shutdown.

SIGTERM or SIGHUP: for [intake].lame_duck_s the intake serves on but is unready and keeps no connection alive, so that
load balancers turn to others. Then it stops listening and finishes open requests, for [intake].drain_grace_s. A client
that waits longer is told where the job goes on (closing.py). A second signal skips the rest of the time; SIGINT, which
comes from a terminal, skips the first part.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from bitladder.logs.setup import log_listening
from bitladder.process.signals import ending
from bitladder.settings.intake_section import IntakeSettings
from bitladder.settings.load import process_environment
from dispatcher.http.closing import Closing
from dispatcher.http.http_protocol import protocol_with

log = structlog.get_logger()
# The answers that end the last waits have this long to reach their clients.
_FLUSH_S = 2.0
POLL_INTERVAL_S = 0.05
# Connections accepted at the end: twice what the kernel's queue holds, because more arrive meanwhile.
_MAX_WAITING = 4096


class IntakeServer(uvicorn.Server):
    """One intake's HTTP server."""

    def __init__(self, app: ASGIApp, settings: IntakeSettings, closing: Closing) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=protocol_with(settings, closing),
                ws="none",
                log_config=None,  # its loggers are as those of all libraries (bitladder/logs/setup.py)
                log_level=logging.root.getEffectiveLevel(),
                access_log=False,
                timeout_keep_alive=settings.keep_alive_s,
            )
        )
        self._settings, self._closing = settings, closing
        self._skips_lame_duck = self._skips_grace = False
        self._lame_duck_until = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals as requests to shut down; uvicorn would raise them again at the end, and die of them."""
        before = {number: signal.signal(number, self.handle_exit) for number in ending()}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del frame
        self._skips_grace = self.should_exit
        self._skips_lame_duck = self.should_exit or sig == signal.SIGINT
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening; uvicorn asks ten times a second."""
        if not await super().on_tick(counter):
            return False
        now = asyncio.get_running_loop().time()
        if not self._closing.is_draining:
            self._closing.is_draining = True
            self._lame_duck_until = now + self._settings.lame_duck_s
            log.info("intake is unready", lame_duck_s=self._settings.lame_duck_s)
        return self._skips_lame_duck or now >= self._lame_duck_until

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, log where, and tell systemd."""
        await super().startup(sockets)
        listeners = sockets or [socket_ for server in self.servers for socket_ in server.sockets]
        log_listening(self.config.host, listeners[0].getsockname()[1])
        _notify_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish open requests, and tell the clients of the rest where their jobs go on."""
        self._closing.is_draining = True
        await self._stop_listening(sockets or [])
        await asyncio.sleep(POLL_INTERVAL_S)  # so that data that has arrived is read
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._are_closed_in(self._settings.drain_grace_s):
            log.info("clients of open requests are sent elsewhere", requests=len(self.server_state.tasks))
            self._closing.interrupt()
            self._skips_grace = False
            if not await self._are_closed_in(_FLUSH_S):
                await self._cut_off()
        await self.lifespan.shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets, after accepting the connections that wait: the kernel would reset them."""
        listeners = [
            socket.socket(fileno=os.dup(listener.fileno())) for server in self.servers for listener in server.sockets
        ]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()  # before what waits is accepted: nobody else may connect behind it
        waiting = [connection for listener in listeners for connection in _accepted(listener)]
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _are_closed_in(self, limit_s: float) -> bool:
        """Return whether all connections are closed, and all requests answered, in that time."""
        end = asyncio.get_running_loop().time() + limit_s
        while self.server_state.connections or self.server_state.tasks:
            if self._skips_grace or asyncio.get_running_loop().time() >= end:
                return False
            await asyncio.sleep(POLL_INTERVAL_S)
        return True

    async def _cut_off(self) -> None:
        """Close the connections of clients that do not read."""
        log.warning("clients that did not read are cut off", connections=len(self.server_state.connections))
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._are_closed_in(_FLUSH_S)


def _notify_ready() -> None:
    """Tell systemd that requests are served, where it asks for that: sd_notify(3)."""
    if address := process_environment().get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, contextlib.suppress(OSError):
            manager.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            manager.send(b"READY=1")


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that wait to be accepted, and close the listener."""
    accepted: list[socket.socket] = []
    with listener:
        listener.setblocking(False)
        for _ in range(_MAX_WAITING):
            try:
                connection, _ = listener.accept()
            except ConnectionError:
                continue  # the client has gone
            except OSError:
                break  # no other waits
            connection.setblocking(False)
            accepted.append(connection)
    return accepted
