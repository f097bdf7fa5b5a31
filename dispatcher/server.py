"""uvicorn's server with an end that nobody notices who can go elsewhere.

SIGTERM or SIGHUP: for [intake].lame_duck_s the intake serves on but is unready and keeps no connection, so that whoever
shares requests out turns to others. Then it listens no longer and finishes what it has, for [intake].drain_grace_s. Who
waits longer is told where the job goes on (closing.py). A second signal spares the rest of the time; SIGINT, which
somebody at a terminal sends, spares the first part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from bitladder.settings.intake_section import IntakeSettings
from bitladder.signals import ending
from dispatcher.closing import Closing
from dispatcher.http_protocol import bounded_by

log = structlog.get_logger()
# What is told at the end has this long to reach its client.
LAST_WORDS_S = 2.0
LOOK_EVERY_S = 0.05
# As many as the kernel may hold for us, twice: others come while these are taken.
MAX_WAITING = 4096


class IntakeServer(uvicorn.Server):
    """One intake's HTTP server."""

    def __init__(self, app: ASGIApp, settings: IntakeSettings, closing: Closing) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=bounded_by(settings, closing),
                ws="none",
                log_level="warning",
                access_log=False,
                timeout_keep_alive=settings.keep_alive_s,
            )
        )
        self._settings, self._closing = settings, closing
        self._spares_lame_duck = self._spares_grace = False
        self._lame_until = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals for the wish to end; uvicorn raises them again when it has ended, and dies of them."""
        before = {number: signal.signal(number, self.handle_exit) for number in ending()}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del frame
        self._spares_grace = self.should_exit
        self._spares_lame_duck = self.should_exit or sig == signal.SIGINT
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening; uvicorn asks ten times a second."""
        if not await super().on_tick(counter):
            return False
        now = asyncio.get_running_loop().time()
        if not self._closing.is_near:
            self._closing.is_near = True
            self._lame_until = now + self._settings.lame_duck_s
            log.info("intake is unready", lame_duck_s=self._settings.lame_duck_s)
        return self._spares_lame_duck or now >= self._lame_until

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no longer, finish what is open, and tell the rest where it goes on."""
        self._closing.is_near = True
        await self._listen_no_longer()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(LOOK_EVERY_S)  # so that what had been sent before is read
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._is_over_in(self._settings.drain_grace_s):
            log.info("requests are sent elsewhere", requests=len(self.server_state.tasks))
            self._closing.come()
            self._spares_grace = False
            if not await self._is_over_in(LAST_WORDS_S):
                await self._cut_off()
        await self.lifespan.shutdown()

    async def _listen_no_longer(self) -> None:
        """Close the listening sockets, and take in who had connected by then: the kernel would reset them all."""
        listeners = [socket.socket(fileno=os.dup(one.fileno())) for server in self.servers for one in server.sockets]
        for server in self.servers:
            server.close()
        waiting = [connection for listener in listeners for connection in _accepted(listener)]
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _is_over_in(self, limit_s: float) -> bool:
        """Return whether all connections are closed, and all requests answered, in that time."""
        end = asyncio.get_running_loop().time() + limit_s
        while self.server_state.connections or self.server_state.tasks:
            if self._spares_grace or asyncio.get_running_loop().time() >= end:
                return False
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    async def _cut_off(self) -> None:
        """Close what is left: of clients that do not read."""
        log.warning("clients that did not read are cut off", connections=len(self.server_state.connections))
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._is_over_in(LAST_WORDS_S)


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that wait to be accepted, and close the listener."""
    accepted: list[socket.socket] = []
    with listener:
        listener.setblocking(False)
        for _ in range(MAX_WAITING):
            try:
                connection, _ = listener.accept()
            except ConnectionError:
                continue  # its client has left
            except OSError:
                break  # none is left
            connection.setblocking(False)
            accepted.append(connection)
    return accepted
