"""Clients that come when they come, whoever still waits: `python -m benchmarks.load.open_loop URL RATE SECONDS …`.

Arguments: URL, requests a second, seconds, deadline in ms, words of the answer. Prints a row per request:
[second it was sent, HTTP status, seconds until the answer, Retry-After in seconds (0: none)].
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import aiohttp
import uvloop

from benchmarks.load.client import opened

Row = tuple[float, int, float, float]
# Where the server says nothing at all, not even that it refuses.
NO_ANSWER = 0


async def main(url: str, rate: float, seconds: float, deadline_ms: int, tokens: int) -> list[Row]:
    """Send requests at random times, `rate` a second, and return what became of each."""
    dice = random.Random(7)  # noqa: S311  (arrival times)
    tasks: list[asyncio.Task[Row]] = []
    begin, due = time.perf_counter(), 0.0
    headers = {"X-Deadline-Ms": str(deadline_ms)}
    async with opened() as session:
        while (due := due + dice.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
            body = {"model": "smollm2", "prompt": f"user {len(tasks)} asks", "max_tokens": tokens}
            tasks.append(asyncio.create_task(_one(session, url, body, headers, begin)))
        return await asyncio.gather(*tasks)


async def _one(
    session: aiohttp.ClientSession, url: str, body: dict[str, object], headers: dict[str, str], begin: float
) -> Row:
    start = time.perf_counter()
    try:
        async with session.post(url, json=body, headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as answer:
            await answer.read()
            status, retry_after_s = answer.status, float(answer.headers.get("Retry-After", 0))
    except (aiohttp.ClientError, TimeoutError):
        status, retry_after_s = NO_ANSWER, 0.0
    return (start - begin, status, time.perf_counter() - start, retry_after_s)


if __name__ == "__main__":
    given = sys.argv[1:]
    rows = uvloop.run(main(given[0], float(given[1]), float(given[2]), int(given[3]), int(given[4])))
    # Not sys.stdout: where PYTHONUNBUFFERED is set, it forgets the rest when a pipe takes only a part.
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as output:
        output.write(json.dumps({"rows": rows}) + "\n")
