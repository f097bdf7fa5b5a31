"""Where `bitladder top` gets its samples: the stream of an intake, or Redis itself. Both go on after an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import httpx2
import msgspec

from bitladder.cli.ops.asking import in_force
from bitladder.client.answers import authorization, base_url, checked, unanswered
from bitladder.errors import BitladderError, JobError, ProtocolError
from bitladder.overview.overview_reader import OverviewReader
from bitladder.overview.several import sample_of_all
from bitladder.overview.shape import Overview
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings

# A sample, or why there is none now.
Item = Overview | BitladderError
Samples = Callable[[], AsyncGenerator[Item]]
_EVERY_S = 1.0
# An intake sends a sample each second, and a heartbeat at least where Redis hangs.
_SILENT_S = 30.0
_MAX_EVENT_CHARS = 4_000_000
# No later try can help: a key without the scope, an intake without the route.
_LASTING = (400, 401, 403, 404, 405)


def samples_of(url: str | None, api_key: str | None, config: str | None) -> tuple[str, Samples]:
    """Return whom `top` asks, in words, and its samples: one a second, for ever.

    Raises:
        ConfigError: the URL, the key or the configuration is wrong.

    """
    if url and config is None:
        base, headers = base_url(url), authorization(api_key)
        return f"{base.scheme}://{base.netloc.decode()}", lambda: _by_intake(base, headers)
    settings = in_force(load_settings(config, with_keys=True)).settings
    return "Redis", lambda: _by_redis(settings)


def is_lasting(error: BitladderError) -> bool:
    """Return whether the next try will fail as this one did."""
    return error.status in _LASTING or isinstance(error, ProtocolError)


async def _by_redis(settings: Settings) -> AsyncGenerator[Item]:
    queues = {",".join(part.models): JobQueue(connect(part.redis), part) for part in settings.at_each_redis}
    takes = {name: OverviewReader(queue).read for name, queue in queues.items()}
    try:
        while True:
            try:
                item: Item = (await sample_of_all(takes)).overview
            except BitladderError as error:
                item = error
            yield item
            await asyncio.sleep(_EVERY_S)
    finally:
        for queue in queues.values():
            await queue.aclose()


async def _by_intake(base: httpx2.URL, headers: dict[str, str]) -> AsyncGenerator[Item]:
    timeout = httpx2.Timeout(10, read=_SILENT_S)
    async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=timeout) as http:
        while True:
            try:
                async with http.stream("GET", "/v1/overview/stream") as answer:
                    if answer.status_code != 200:
                        await answer.aread()
                        checked(answer)
                    async with contextlib.aclosing(_read(answer.aiter_lines())) as items:
                        async for item in items:
                            yield item
                yield JobError("the intake has ended the stream: it is being stopped", 503)
            except httpx2.HTTPError as error:
                yield unanswered(base, error)
            except BitladderError as error:
                yield error
            await asyncio.sleep(_EVERY_S)


async def _read(lines: AsyncIterator[str]) -> AsyncGenerator[Item]:
    """Read server-sent events: samples, and what is wrong where there is none."""
    kind, data = "", ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value[:_MAX_EVENT_CHARS]
        elif not line and data:
            if kind in ("sample", "problem"):
                yield _item(kind, data)
            kind = data = ""


def _item(kind: str, data: str) -> Item:
    try:
        if kind == "sample":
            return _OVERVIEW.decode(data)
        problem = _PROBLEM.decode(data).error
        return JobError(problem.message, 503, problem.code)
    except msgspec.DecodeError as error:
        return JobError(f"the intake has another version: {error}", 400)


class _Detail(msgspec.Struct):
    message: str
    code: str | None = None


class _Problem(msgspec.Struct):
    error: _Detail


_OVERVIEW, _PROBLEM = msgspec.json.Decoder(Overview), msgspec.json.Decoder(_Problem)
