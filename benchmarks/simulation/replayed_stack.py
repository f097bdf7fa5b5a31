"""The stack of benchmarks.simulation.validate, and a client that replays requests at their times."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import msgspec

from benchmarks.harness import process, valkey, wait_for
from bitladder.cli.private_stack import free_port

WORKERS = {"int4": 2, "int8": 1, "fp8": 1}
PRIORITIES = {"urgent": "9", "normal": "5", "batch": "1"}


@contextlib.contextmanager
def stack(folder: Path) -> Iterator[str]:
    """Run Valkey, an intake and the workers; yields the intake's URL when all workers are live."""
    with contextlib.ExitStack() as block:
        url = block.enter_context(valkey(folder))
        port = free_port()
        environment = {
            "BITLADDER_CONFIG": str(folder / "bitladder.toml"),
            "BITLADDER_REDIS__URL": url,
            "BITLADDER_ECHO__CURVES": str(folder / "curves.json"),
            "BITLADDER_INTAKE__LAME_DUCK_S": "0",
        }
        serve = [sys.executable, "-P", "-m", "bitladder.cli.main", "serve", "--port", str(port)]
        block.enter_context(process(serve, environment))
        for tier, count in WORKERS.items():
            for _ in range(count):
                block.enter_context(process([sys.executable, "-P", "-m", "workers", "--tier", tier], environment))
        intake = f"http://127.0.0.1:{port}"
        wait_for(lambda: live(intake) == WORKERS, "the workers are live")
        yield intake


def live(intake: str) -> Mapping[str, int]:
    """Return the live workers of each tier."""
    with contextlib.suppress(httpx2.HTTPError):
        headers = {"Authorization": f"Bearer {key_of('big')}"}
        tiers = httpx2.get(f"{intake}/v1/queues", timeout=5, headers=headers).json()["data"][0]["tiers"]
        return {tier["tier"]: tier["live_workers"] for tier in tiers}
    return {}


def key_of(tenant: str) -> str:
    """Return the API key of a tenant."""
    return f"bl-validate-{tenant}-0123456789abcdef0123456789abcdef"


class Answer(msgspec.Struct, frozen=True):
    """What a client saw."""

    status: int
    ended_s: float  # since the first request was due
    tier: str
    floor: str
    cost: float
    queue_s: float


async def replay(intake: str, requests: Sequence[Mapping[str, Any]]) -> tuple[list[Answer], float]:
    """Send each request when it is due; return the answers, and how late the client was at most."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await _send(session, intake, requests[0])  # what is loaded with a first request
        begin_s, late_s = time.perf_counter() + 0.5, 0.0
        tasks = []
        for request in requests:
            due_s = begin_s + request["at_s"]
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            late_s = max(late_s, time.perf_counter() - due_s)
            tasks.append(asyncio.create_task(_send(session, intake, request, begin_s)))
        return list(await asyncio.gather(*tasks)), late_s


async def _send(
    session: aiohttp.ClientSession, intake: str, request: Mapping[str, Any], begin_s: float = 0.0
) -> Answer:
    body: dict[str, Any] = {
        "model": "bench",
        "prompt": " ".join(["a"] * max(1, request["input_tokens"])),
        "max_tokens": max(1, request["output_tokens"]),
    }
    headers = {
        "X-Min-Tier": request["floor"],
        "X-Priority": PRIORITIES[request["lane"]],
        "Authorization": f"Bearer {key_of(request.get('tenant', 'big'))}",
    }
    if "deadline_s" in request:
        headers["X-Deadline-Ms"] = str(int(request["deadline_s"] * 1000))
    if "ceiling" in request:
        headers["X-Max-Tier"] = request["ceiling"]
    if "only" in request:
        body["provider"] = {"quantizations": request["only"]}
    async with session.post(f"{intake}/v1/completions", json=body, headers=headers) as answer:
        content = await answer.read()
        ended_s, told = time.perf_counter() - begin_s, answer.headers
        if answer.status not in (200, 429, 504):
            raise RuntimeError(f"{answer.status}: {content[:200]!r}")
    cost, queue_s = float(told.get("X-Cost", 0)), float(told.get("X-Queue-Ms", 0)) / 1000
    return Answer(answer.status, ended_s, told.get("X-Tier", ""), told.get("X-Floor", ""), cost, queue_s)
