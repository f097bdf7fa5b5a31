"""An HTTP server that answers each request with the bytes that a test wrote down, cut where the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def reply(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> bytes:
    """Return a whole answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content_type": "application/json", **headers, "content_length": str(len(content))}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + content


def stream(*parts: bytes, ends: bool = True) -> list[bytes]:
    """Return a stream in so many writes; one that does not end is broken off."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part]
    return [head, *chunks, *([b"0\r\n\r\n"] if ends else [])]


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Scripted:
    """The server of one test."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []  # bodies, as they came
        self.times_s: list[float] = []
        self.replies: list[bytes | list[bytes]] = []  # the last one stays
        self.connections: set[asyncio.StreamWriter] = set()

    def say(self, *replies: bytes | Iterable[bytes]) -> None:
        self.replies = [reply if isinstance(reply, bytes) else list(reply) for reply in replies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(HEALTHY)
                    continue
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                self.asked.append(json.loads(await reader.readexactly(length)))
                self.times_s.append(asyncio.get_running_loop().time())
                said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if not await self._write(said, writer):
                    break
        writer.close()

    @staticmethod
    async def _write(said: bytes | list[bytes], writer: asyncio.StreamWriter) -> bool:
        """Write an answer; return whether it has an end."""
        parts = [said] if isinstance(said, bytes) else said
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001 if len(parts) < 200 else 0)  # so that each is read alone
        return isinstance(said, bytes) or said[-1].endswith(b"0\r\n\r\n")


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    script = Scripted()
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        for connection in script.connections:
            connection.close()
            with contextlib.suppress(ConnectionError):
                await connection.wait_closed()
