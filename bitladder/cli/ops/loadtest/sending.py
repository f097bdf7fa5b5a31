"""Send the requests of a plan, and measure what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import msgspec

from bitladder.cli.ops.loadtest.load_plan import LoadRequest, Mode
from bitladder.cli.ops.loadtest.request_sample import NO_ANSWER, UNFINISHED, Sample
from bitladder.client.answers import TERMINAL, authorization, job_path

_LINE_BYTES = 2**20
_WAIT_S = 30
_MAX_MESSAGE = 300
_ROUTES = {
    Mode.CHAT_STREAM: "/v1/chat/completions",
    Mode.CHAT: "/v1/chat/completions",
    Mode.COMPLETIONS_STREAM: "/v1/completions",
    Mode.COMPLETIONS: "/v1/completions",
    Mode.JOBS: "/v1/jobs",
}
# An event with text in it; parsed are only errors and token counts, as the client must not be what is measured.
_TEXTS = (b'"content":"', b'"text":"')
_EMPTY = (b'"content":""', b'"text":""')


class LoadRun:
    """One run: the requests that are under way, and the samples so far."""

    def __init__(self, url: str, api_key: str | None, model: str, *, timeout_s: float) -> None:
        self._url, self._model = url.rstrip("/"), model
        self._headers, self._timeout_s = authorization(api_key), timeout_s
        self._begin = time.perf_counter()
        self._stop = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.samples: list[Sample] = []
        self.sent = 0

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self._begin

    def stop(self) -> None:
        """Send no more, and leave what is under way."""
        self._stop.set()

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    async def run(self, requests: Iterator[LoadRequest], *, clients: int, duration_s: float, drain_s: float) -> None:
        """Send all; at most `clients` at once. A request that is due while all are busy is sent late, and counts so."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=10)
        self._begin, free = time.perf_counter(), asyncio.Semaphore(clients)
        async with aiohttp.ClientSession(
            headers=self._headers, connector=connector, timeout=timeout, read_bufsize=_LINE_BYTES
        ) as session:
            for request in requests:
                await self._pause(request.due_s)
                if not await self._taken(free) or (request.due_s is None and self.now_s >= duration_s):
                    break
                due_s = self.now_s if request.due_s is None else request.due_s
                task = asyncio.create_task(self._one(session, request, due_s, free.release))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            await self._drain(drain_s)

    async def _pause(self, due_s: float | None) -> None:
        """Wait until a request is due, or the run is stopped."""
        if due_s is not None and due_s > self.now_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), due_s - self.now_s)

    async def _taken(self, free: asyncio.Semaphore) -> bool:
        """Wait for a free client; False: the run is stopped."""
        if not free.locked():
            await free.acquire()
            return not self.is_stopped
        stopping, taking = asyncio.create_task(self._stop.wait()), asyncio.create_task(free.acquire())
        try:
            await asyncio.wait({stopping, taking}, return_when=asyncio.FIRST_COMPLETED)
            return not self.is_stopped
        finally:
            stopping.cancel()
            taking.cancel()

    async def _drain(self, drain_s: float) -> None:
        """Wait for what is under way, for some time, unless the run is stopped; then end it."""
        if self.tasks and not self.is_stopped:
            stopping = asyncio.create_task(self._stop.wait())
            ends = asyncio.create_task(asyncio.wait(self.tasks))
            await asyncio.wait([stopping, ends], timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            ends.cancel()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _one(
        self, session: aiohttp.ClientSession, request: LoadRequest, due_s: float, release: Callable[[], None]
    ) -> None:
        sample = Sample(request, due_s, self.now_s, code=UNFINISHED)
        self.sent += 1
        try:
            await self._ask(session, sample)
        except asyncio.CancelledError:
            sample.code = UNFINISHED
            if sample.job_id and request.mode is Mode.JOBS:
                await self._cancel(session, sample)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            if sample.code == UNFINISHED:
                sample.code, sample.message = NO_ANSWER, (str(error) or type(error).__name__)[:_MAX_MESSAGE]
        finally:
            sample.end_s = sample.end_s or self.now_s
            self.samples.append(sample)
            release()

    async def _ask(self, session: aiohttp.ClientSession, sample: Sample) -> None:
        request = sample.request
        params = {"endpoint": _ROUTES[Mode.CHAT]} if request.mode is Mode.JOBS else {}
        async with session.post(
            self._url + _ROUTES[request.mode], json=_body(request, self._model), headers=request.headers, params=params
        ) as answer:
            sample.status, sample.job_id = answer.status, answer.headers.get("X-Job-Id", "")
            if answer.status >= 400:
                sample.code, sample.message = _error_of(await answer.read())
                return
            if request.mode.is_stream:
                await self._read_stream(answer, sample)
            else:
                content = await answer.read()
                sample.end_s = self.now_s
                _note_headers(sample, answer.headers)
                sample.code = ""
                if request.mode is Mode.JOBS:
                    sample.job_id, sample.code = msgspec.json.decode(content)["id"], UNFINISHED
                else:
                    _note_usage(sample, msgspec.json.decode(content).get("usage"))
        if request.mode is Mode.JOBS:
            await self._await_job(session, sample)
        elif request.mode.is_stream and sample.job_id:
            _note_job(sample, await self._job(session, sample, {}))

    async def _read_stream(self, answer: aiohttp.ClientResponse, sample: Sample) -> None:
        last_s = None
        async for line in answer.content:
            now_s = self.now_s
            if any(text in line for text in _TEXTS) and not any(text in line for text in _EMPTY):
                sample.first_s = now_s if sample.first_s is None else sample.first_s
                sample.gaps_s += [] if last_s is None else [now_s - last_s]
                last_s = now_s
            if b'"usage":{' in line or b'"error"' in line:
                event = msgspec.json.decode(line.removeprefix(b"data:").strip())
                _note_usage(sample, event.get("usage"))
                if "error" in event:
                    error = event["error"] or {}
                    sample.code = str(error.get("code") or "stream_error")[:80]
                    sample.message = str(error.get("message") or "")[:_MAX_MESSAGE]
        sample.end_s = self.now_s
        sample.code = "" if sample.code == UNFINISHED else sample.code

    async def _await_job(self, session: aiohttp.ClientSession, sample: Sample) -> None:
        while True:
            job = await self._job(session, sample, {"wait": str(_WAIT_S)})
            if not job:  # it expired, or may not be read
                sample.code = NO_ANSWER
                return
            if job.get("status") in TERMINAL:
                break
        sample.end_s = self.now_s
        if job["status"] != "finished":
            error = job.get("error") or {}
            sample.code = str(error.get("code") or job["status"])
            sample.message = str(error.get("message") or "")[:_MAX_MESSAGE]
        else:
            sample.code = ""
        _note_job(sample, job)

    async def _job(self, session: aiohttp.ClientSession, sample: Sample, params: dict[str, str]) -> dict[str, Any]:
        async with session.get(self._url + job_path(sample.job_id), params=params) as answer:
            job: dict[str, Any] = msgspec.json.decode(await answer.read())
            return job if answer.status < 400 else {}

    async def _cancel(self, session: aiohttp.ClientSession, sample: Sample) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.delete(self._url + job_path(sample.job_id), timeout=aiohttp.ClientTimeout(total=5)):
                pass


def _body(request: LoadRequest, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens, "temperature": 0}
    if _ROUTES[request.mode] == _ROUTES[Mode.COMPLETIONS]:
        body["prompt"] = request.prompt
    else:
        body["messages"] = [{"role": "user", "content": request.prompt}]
    if request.mode.is_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def _error_of(content: bytes) -> tuple[str, str]:
    """Return an error's code and message."""
    with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError, AttributeError):
        error = msgspec.json.decode(content)["error"]
        return str(error["code"])[:80], str(error.get("message") or "")[:_MAX_MESSAGE]
    return "unreadable_error", content[:80].decode(errors="replace")


def _note_headers(sample: Sample, headers: Any) -> None:  # noqa: ANN401  (aiohttp's multidict)
    sample.tier, sample.floor = headers.get("X-Tier", ""), headers.get("X-Floor", "")
    sample.overflowed_from = headers.get("X-Overflowed-From", "")
    sample.queue_s = float(headers["X-Queue-Ms"]) / 1000 if "X-Queue-Ms" in headers else None
    sample.cost = float(headers["X-Cost"]) if "X-Cost" in headers else None


def _note_job(sample: Sample, job: dict[str, Any]) -> None:
    sample.tier, sample.floor = job.get("tier") or "", job.get("floor") or ""
    sample.overflowed_from, sample.cost = job.get("overflowed_from") or "", job.get("cost")
    sample.queue_s = job["queue_ms"] / 1000 if job.get("queue_ms") is not None else None
    _note_usage(sample, job.get("usage"))


def _note_usage(sample: Sample, usage: Any) -> None:  # noqa: ANN401  (of the engine)
    if isinstance(usage, dict):
        sample.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        sample.completion_tokens = int(usage.get("completion_tokens") or 0)
