"""Send the demo's requests as a user's client would, with live progress, and read what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bitladder.client import envelope_headers
from calibration.terminal.progress import TimeLeft

_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """One request to send."""

    kind: str
    prompt: str
    envelope: Mapping[str, Any] = field(default_factory=dict)

    def within(self, limits: Mapping[str, str]) -> DemoRequest:
        return replace(self, envelope={**self.envelope, **limits})


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request and what became of it, as its client saw it."""

    prompt: str
    is_plain: bool  # it asked for nothing but an answer
    job: Mapping[str, Any]  # as GET /v1/jobs/{id} shows it
    ttft_s: float | None  # from sending to the first token
    total_s: float
    error: str = ""

    @property
    def is_answered(self) -> bool:
        return self.job.get("status") == "finished" and bool(self.text)

    @property
    def text(self) -> str:
        return " ".join((self.job.get("text") or "").split())

    @property
    def tokens(self) -> int:
        return int((self.job.get("usage") or {}).get("completion_tokens", 0))

    @property
    def has_escalated(self) -> bool:
        return bool(self.job.get("overflowed_from"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBatch:
    """Requests that were sent together."""

    served: Sequence[Served]
    wall_s: float  # until the last answer

    @property
    def cost(self) -> float:
        return float(sum(served.job.get("cost") or 0 for served in self.served))


class DemoClient:
    """Sends requests side by side, and shows how far they are."""

    def __init__(self, url: str, model: str, console: Console, *, expected_s: float) -> None:
        self._model, self._console, self._expected_s = model, console, expected_s
        limits = httpx2.Limits(max_connections=None)  # a burst is as many connections as requests
        self._http = httpx2.AsyncClient(base_url=url, timeout=600, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send_all(
        self, text: str, requests: Sequence[DemoRequest], max_tokens: int, *, shows_first: bool = False
    ) -> ServedBatch:
        """Send all at once; return what became of them, in the order of the requests."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeLeft(),
            TextColumn("{task.fields[depths]}"),
        )
        started_s = time.perf_counter()
        # One request is answered before a bar would tell anything.
        with Progress(*columns, console=self._console, disable=len(requests) == 1) as progress:
            task = progress.add_task(text, total=len(requests), depths="", expected_s=self._expected_s)
            finished = 0

            async def send(request: DemoRequest) -> Served:
                nonlocal finished
                served = await self._send(request, max_tokens)
                if shows_first and not finished and served.is_answered:
                    self._show(served)
                finished += 1
                progress.advance(task)
                return served

            async def poll() -> None:
                while True:
                    progress.update(task, depths=await self._depths())
                    await asyncio.sleep(_POLL_S)

            polling = asyncio.create_task(poll())
            try:
                served = await asyncio.gather(*(send(request) for request in requests))
            finally:
                polling.cancel()
                progress.update(task, depths="")
        return ServedBatch(served=served, wall_s=time.perf_counter() - started_s)

    def _show(self, served: Served) -> None:
        tier, question = served.job.get("tier"), " ".join(served.prompt.split())
        self._console.print(f"the first answer, by {tier} after {served.total_s:.1f} s:", highlight=False)
        self._console.print(f"  {question} -> {served.text}", highlight=False, markup=False)

    async def _send(self, request: DemoRequest, max_tokens: int) -> Served:
        """Stream one chat answer, and read the job's story afterwards."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": request.prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = envelope_headers(dict(request.envelope))
        job: dict[str, Any] = {}
        ttft_s, error, job_id, start_s = None, "", None, time.perf_counter()
        total_s = None
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                job_id = answer.headers.get("x-job-id")
                async for line in answer.aiter_lines():
                    if '"content":"' in line and '"content":""' not in line and ttft_s is None:
                        ttft_s = time.perf_counter() - start_s
                    error = line if '"error"' in line else error
            total_s = time.perf_counter() - start_s
            if job_id:
                job = (await self._http.get(f"/v1/jobs/{job_id}")).json()
        except httpx2.HTTPError as failure:
            error = str(failure)
        return Served(
            prompt=request.prompt,
            is_plain=not request.envelope,
            job=job,
            ttft_s=ttft_s,
            total_s=total_s or time.perf_counter() - start_s,
            error=error,
        )

    async def _depths(self) -> str:
        with contextlib.suppress(httpx2.HTTPError, ValueError, LookupError):
            tiers = (await self._http.get("/v1/queues")).json()["data"][0]["tiers"]
            return "  ".join(f"{tier['tier']}: {tier['depth']} wait, {tier['in_flight']} run" for tier in tiers)
        return ""
