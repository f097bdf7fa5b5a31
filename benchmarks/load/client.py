"""Clients that read token streams: `python -m benchmarks.load.client URL STREAMS TOKENS START`.

Prints for every stream when it was sent and when each of its events came, and the CPU time that reading took. Nothing
is parsed: the client must not be what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import uvloop

Times = list[float]
_EVENT = b"data: "
_END = b"data: [DONE]\n\n"


async def read_stream(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> Times:
    """Return when the request was sent and when each event with text came (time.perf_counter).

    Raises:
        RuntimeError: the request was refused, or the stream broke or stopped before its end.

    """
    times, tail = [time.perf_counter()], b""
    async with session.post(url, json=body | {"stream": True}) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{url} answered {answer.status}: {(await answer.text())[:200]}")
        async for chunk in answer.content.iter_any():
            now = time.perf_counter()
            # A read may end within the marker: what is left over is too short to hold one that was counted.
            times += [now] * (tail[1 - len(_EVENT) :] + chunk).count(_EVENT)
            tail = (tail + chunk)[-len(_END) :]
            if b'"error"' in chunk:
                raise RuntimeError(f"the stream broke: {chunk[:300]!r}")
    if tail != _END:
        raise RuntimeError(f"a stream must end with {_END!r}, got {tail!r}")
    return times[:-1]


async def read_answer(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> float:
    """Return how long one whole answer took, in seconds."""
    start = time.perf_counter()
    async with session.post(url, json=body) as answer:
        content = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{url} answered {answer.status}: {content[:200]!r}")
    return time.perf_counter() - start


def opened() -> aiohttp.ClientSession:
    """Return a session without limits of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None, sock_connect=10)
    )


async def _many(url: str, streams: int, tokens: int, start: float) -> dict[str, object]:
    # Several clients begin together, and their imports do not fall into what is measured.
    await asyncio.sleep(max(0.0, start - time.perf_counter()))
    used_s = time.process_time()
    async with opened() as session:

        async def one(number: int) -> Times:
            await asyncio.sleep(number / streams)  # users do not come in the same millisecond
            body: dict[str, object] = {"model": "bench", "prompt": f"user {number} asks", "max_tokens": tokens}
            return await read_stream(session, url, body)

        times = await asyncio.gather(*(one(number) for number in range(streams)))
    return {"times": times, "cpu_s": time.process_time() - used_s}


if __name__ == "__main__":
    found = uvloop.run(_many(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    # Not sys.stdout: where PYTHONUNBUFFERED is set, it forgets the rest when a pipe takes only a part.
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as output:
        output.write(json.dumps(found) + "\n")
