"""Bytes to an intake and back, on a connection of their own: as fast, and as wrong, as a socket allows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field


@dataclass
class Case:
    """One conversation: what is sent, chunk by chunk, and how the client leaves."""

    kind: str
    chunks: list[bytes]
    closes_writing: bool = False  # half-closes after the last chunk: the rest will never come
    leaves: bool = False  # closes without reading an answer


@dataclass
class Answer:
    """What came back."""

    raw: bytes = b""
    hung: bool = False
    reset: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The status of the first answer; 0 where the connection was closed without one."""
        words = self.raw[:32].split(b" ")
        return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit() else 0

    def error(self) -> dict[str, object] | None:
        """Return the error of a complete answer in OpenAI's shape; None where it has another one."""
        head, _, body = self.raw.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            return None
        with contextlib.suppress(ValueError):
            error = json.loads(body[: _length(head)])["error"]
            if isinstance(error["message"], str) and {"type", "param", "code"} <= set(error):
                return dict(error)
        return None


async def talk(port: int, case: Case, limit_s: float) -> Answer:
    """Send one case and read to its end."""
    answer = Answer()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        async with asyncio.timeout(limit_s):
            await _send(writer, case)
            if not case.leaves:
                await _read(reader, answer)
    except TimeoutError:
        answer.hung = True
    except OSError:  # reset; or gone before we could half-close
        answer.reset = True
        with contextlib.suppress(OSError, TimeoutError):  # what was said before the connection was cut
            async with asyncio.timeout(1):
                answer.raw += await reader.read()
    finally:
        writer.transport.abort() if case.leaves else writer.close()
    return answer


async def _send(writer: asyncio.StreamWriter, case: Case) -> None:
    for chunk in case.chunks:
        writer.write(chunk)
        await writer.drain()
        if len(case.chunks) > 1:
            await asyncio.sleep(0)
    if case.closes_writing and writer.can_write_eof():
        writer.write_eof()


async def _read(reader: asyncio.StreamReader, answer: Answer) -> None:
    while not _is_whole(answer.raw):
        chunk = await reader.read(65536)
        if not chunk:
            return
        answer.raw += chunk


def _is_whole(raw: bytes) -> bool:
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found or raw.startswith(b"HTTP/1.1 1"):
        return False
    if b"connection: close" in head.lower():
        return False  # the end of the connection is the end of the answer
    if b"transfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= _length(head)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
