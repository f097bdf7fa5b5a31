"""bitladder demo: 40 mixed prompts on a stack of its own, with live progress, and where each was served and why."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any

import httpx2
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bitladder.cli.common_options import Config
from bitladder.cli.private_stack import PrivateStack, private_stack
from bitladder.client import envelope_headers
from bitladder.settings.sections import Settings

# How many requests are sent side by side: more than one engine's slots, so that queues form.
CONCURRENCY = 40
MAX_TOKENS = 32
_FIELDS = ("priority", "max_latency_ms", "deadline_ms", "min_tier", "max_tier")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """One request and what became of it, as its client saw it."""

    kind: str
    prompt: str
    job: dict[str, Any]  # as GET /v1/jobs/{id} shows it
    ttft_s: float | None  # from sending to the first token
    total_s: float
    error: str = ""

    @property
    def is_answered(self) -> bool:
        return self.job.get("status") == "finished" and bool((self.job.get("text") or "").strip())

    @property
    def tokens(self) -> int:
        return int((self.job.get("usage") or {}).get("completion_tokens", 0))


def demo(
    config: Config = None,
    engine: Annotated[str, typer.Option(help="vllm, or echo: the same without a model.")] = "vllm",
    start_timeout_s: Annotated[float, typer.Option(help="Longest wait for the engines.")] = 900,
) -> None:
    """Start a stack of its own, send 40 mixed prompts through it, and show where each was served and why.

    Exit status 0 only if every prompt was answered. Example: bitladder demo --engine echo
    """
    console = Console(stderr=True)
    with private_stack(config, {"worker.engine": engine}) as stack:
        _wait(stack, console, engine, start_timeout_s)
        started = time.perf_counter()
        served = asyncio.run(_send_all(stack.url, _load_prompts(), next(iter(stack.settings.models)), console))
        wall_s = time.perf_counter() - started
    out = Console(width=None if sys.stdout.isatty() else 180)
    out.print(_request_table(served))
    out.print(_tier_table(served, stack.settings, wall_s))
    failed = [request for request in served if not request.is_answered]
    kind = "vLLM" if engine == "vllm" else f"the {engine} engine"
    out.print(f"{len(served) - len(failed)} of {len(served)} prompts were answered by {kind} in {wall_s:.1f} s")
    for request in failed:
        out.print(f"not answered: {request.prompt[:50]!r}: {request.error or request.job.get('error')}", markup=False)
    raise typer.Exit(1 if failed else 0)


def _load_prompts() -> list[dict[str, Any]]:
    """Return the packaged prompts: kind, prompt, and what their envelopes ask for."""
    text = (files("bitladder.cli") / "prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _wait(stack: PrivateStack, console: Console, engine: str, timeout_s: float) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tiers = sum(len(model.tiers) for model in stack.settings.models.values())
        task = progress.add_task(f"starting workers ({engine})", total=tiers)

        def on_poll(live: Mapping[str, int]) -> None:
            progress.update(task, completed=sum(1 for count in live.values() if count))

        stack.wait_until_live(timeout_s, on_poll)


async def _send_all(url: str, prompts: list[dict[str, Any]], model: str, console: Console) -> list[_Served]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[depths]}"),
    )
    slots = asyncio.Semaphore(CONCURRENCY)
    async with httpx2.AsyncClient(base_url=url, timeout=600) as http:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("prompts answered", total=len(prompts), depths="")

            async def send(entry: dict[str, Any]) -> _Served:
                async with slots:
                    served = await _send(http, entry, model)
                progress.advance(task)
                return served

            async def watch() -> None:
                while True:
                    progress.update(task, depths=await _depths(http))
                    await asyncio.sleep(0.5)

            watching = asyncio.create_task(watch())
            try:
                return list(await asyncio.gather(*(send(entry) for entry in prompts)))
            finally:
                watching.cancel()


async def _send(http: httpx2.AsyncClient, entry: dict[str, Any], model: str) -> _Served:
    """Stream one chat answer, as a user's client would, and read the job's story afterwards."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": entry["prompt"]}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = envelope_headers({name: entry.get(name) for name in _FIELDS})
    start, ttft_s, error, job = time.perf_counter(), None, "", {}
    try:
        async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if '"content":"' in line and '"content":""' not in line and ttft_s is None:
                    ttft_s = time.perf_counter() - start
                error = line if '"error"' in line else error
            job_id = answer.headers.get("x-job-id")
        total_s = time.perf_counter() - start
        if job_id:
            job = (await http.get(f"/v1/jobs/{job_id}")).json()
    except httpx2.HTTPError as failure:
        error, total_s = str(failure), time.perf_counter() - start
    return _Served(kind=entry["kind"], prompt=entry["prompt"], job=job, ttft_s=ttft_s, total_s=total_s, error=error)


async def _depths(http: httpx2.AsyncClient) -> str:
    try:
        tiers = (await http.get("/v1/queues")).json()["data"][0]["tiers"]
    except (httpx2.HTTPError, ValueError, LookupError):
        return ""
    return "  ".join(f"{tier['tier']}: {tier['depth']} wait, {tier['in_flight']} run" for tier in tiers)


def _request_table(served: list[_Served]) -> Table:
    """Return a row for every request."""
    table = Table(
        "kind", "request", "bits/byte", "floor", "served by", "why", "queue ms", "TTFT ms", "total ms", "tokens"
    )
    for answered in served:
        job = answered.job
        overflow = " (overflow)" if job.get("overflowed_from") else ""
        ttft = "" if answered.ttft_s is None else f"{answered.ttft_s * 1000:.0f}"
        request = " ".join(answered.prompt.split())[:38].replace("[", "\\[")
        table.add_row(
            answered.kind,
            request,
            f"{job.get('entropy') or 0:.2f}",
            job.get("floor") or "",
            f"{job.get('tier') or '-'}{overflow}",
            job.get("reason") or answered.error[:40],
            f"{job.get('queue_ms') or 0:.0f}",
            ttft,
            f"{answered.total_s * 1000:.0f}",
            str(answered.tokens),
        )
    return table


def _tier_table(served: list[_Served], settings: Settings, wall_s: float) -> Table:
    """Return a row for every tier."""
    table = Table("tier", "hardware", "price/h", "requests", "p50 ms", "p95 ms", "tokens/s", "cost", "overflow taken")
    for tier in next(iter(settings.models.values())).tiers:
        here = [request for request in served if request.job.get("tier") == tier.name]
        times = sorted(request.total_s * 1000 for request in here)
        cost = sum(request.job.get("cost") or 0 for request in here)
        overflowed = sum(1 for request in here if request.job.get("overflowed_from"))
        table.add_row(
            tier.name,
            tier.hardware,
            f"{tier.price_per_hour:.2f}",
            str(len(here)),
            _quantile(times, 50),
            _quantile(times, 95),
            f"{sum(request.tokens for request in here) / wall_s:.1f}",
            f"{cost:.6f}",
            str(overflowed),
        )
    return table


def _quantile(values: list[float], percent: int) -> str:
    """Return a percentile as text; empty for no values."""
    if len(values) < 2:
        return "".join(f"{value:.0f}" for value in values)
    return f"{statistics.quantiles(values, n=100, method='inclusive')[percent - 1]:.0f}"
