"""A TCP proxy that behaves as badly as a network can: delays, throttles, holds, swallows, refuses and cuts.

It runs on a thread of its own, in the process of the test. Every method may be called from any thread and has taken
effect when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

CHUNK_BYTES = 65536
# Steps of the loop that a closed transport has before the loop itself is closed.
SETTLE_STEPS = 5
# SO_LINGER on, for no time at all: closing then resets the connection.
RESET = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What becomes of bytes."""

    PASS = "pass"  # noqa: S105  (not a password)
    HOLD = "hold"  # as in a partition: TCP sends them again, so they arrive late
    SWALLOW = "swallow"  # as behind a NAT that forgot the connection: they are gone, and so are all that follow


@dataclass(slots=True, eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    is_dead_letter: bool = False  # bytes of it were swallowed: the rest would make no sense

    def close(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.close()

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None and not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()


@dataclass(slots=True)
class Weather:
    """How the proxy behaves at the moment."""

    mode: Mode = Mode.PASS
    delay_s: float = 0.0  # added to every chunk, each way
    bytes_per_s: float | None = None  # None: as fast as it can
    passing: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Listens on a port of its own and passes on to `target_port`, both on loopback."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.accepted = 0  # connections so far
        self._weather = Weather()
        self._weather.passing.set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *details: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def delay(self, delay_s: float) -> None:
        """Add so much to every message, each way."""
        self._set(lambda weather: setattr(weather, "delay_s", delay_s))

    def throttle(self, bytes_per_s: float) -> None:
        """Let so much through per connection and direction."""
        self._set(lambda weather: setattr(weather, "bytes_per_s", bytes_per_s))

    def hold(self) -> None:
        """Keep everything back until `heal`; then it arrives, late."""
        self._do(self._turn(Mode.HOLD))

    def black_hole(self) -> None:
        """Swallow everything; connections that lost something stay deaf, also after `heal`, until they are closed."""
        self._do(self._turn(Mode.SWALLOW))

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Take no new connections until `heal`; those that are there go on."""
        self._do(self._stop_listening())

    def heal(self) -> None:
        """End everything but what `black_hole` did to its connections."""
        self._do(self._heal())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _set(self, change: Callable[[Weather], None]) -> None:
        async def apply() -> None:
            change(self._weather)

        self._do(apply())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _turn(self, mode: Mode) -> None:
        self._weather.mode = mode
        if mode is Mode.PASS:
            self._weather.passing.set()
        else:
            self._weather.passing.clear()

    async def _cut(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _heal(self) -> None:
        self._weather.delay_s, self._weather.bytes_per_s = 0.0, None
        await self._turn(Mode.PASS)
        await self._listen()

    async def _close(self) -> None:
        await self._stop_listening()
        await _turns()  # who was accepted a moment ago begins, or nobody would close its socket
        await self._cut()
        mine = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not mine]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._cut()  # what was being connected
        await _turns()  # a transport closes in a turn of its own

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(writer)
        self._connections.add(connection)
        try:
            await self._connected(connection, reader)
        except (OSError, asyncio.CancelledError):
            pass  # a proxy has nobody to tell
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _connected(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        """Join the two ends. In bad weather the far end is not even asked: its kernel would answer for it."""
        if self._weather.mode is Mode.SWALLOW:
            connection.is_dead_letter = True
            while await reader.read(CHUNK_BYTES):
                pass
            return
        await self._weather.passing.wait()
        far_reader, connection.server = await asyncio.open_connection("127.0.0.1", self.target_port)
        ways = [
            asyncio.create_task(self._pass_on(connection, reader, connection.server)),
            asyncio.create_task(self._pass_on(connection, far_reader, connection.client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._linger(connection, len(chunk))
                if not connection.is_dead_letter:
                    writer.write(chunk)
                    await writer.drain()
        if self._weather.mode is not Mode.PASS or connection.is_dead_letter:
            await self._unseen_end(connection)

    async def _linger(self, connection: _Connection, size: int) -> None:
        weather = self._weather
        pause_s = weather.delay_s + (size / weather.bytes_per_s if weather.bytes_per_s else 0)
        if pause_s:
            await asyncio.sleep(pause_s)
        if weather.mode is Mode.SWALLOW:
            connection.is_dead_letter = True
        elif weather.mode is Mode.HOLD:
            await weather.passing.wait()

    async def _unseen_end(self, connection: _Connection) -> None:
        """Keep one end's goodbye from the other, as the network would: it is told by its own time limit."""
        if not connection.is_dead_letter:
            await self._weather.passing.wait()


async def _turns() -> None:
    for _ in range(SETTLE_STEPS):
        await asyncio.sleep(0)
