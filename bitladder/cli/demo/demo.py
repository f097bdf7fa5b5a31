"""bitladder demo: prompts on a stack of its own, a burst that escalates, and each tier alone: where, why, how fast."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bitladder.cli.common_options import Config
from bitladder.cli.demo.demo_remarks import (
    burst_remark,
    checkpoint_remark,
    sharing_remark,
    speed_remark,
    waiting_remark,
)
from bitladder.cli.demo.demo_requests import DemoClient, DemoRequest, ServedBatch
from bitladder.cli.demo.demo_tables import burst_table, request_table, speed_table, tier_table
from bitladder.cli.private_stack import PrivateStack, private_stack
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.sections import Settings
from calibration.terminal.progress import TimeLeft

# As wide as a terminal often is; what has no terminal gets the same.
WIDTH = 100
_MAX_TOKENS = 32
# The echo engine is fast: short answers would leave its queue before the burst is in.
_BURST_TOKENS = {"vllm": 16, "echo": 64}
# A burst that must be larger than this to overflow is left out.
_MAX_BURST = 300
# How long things take on two idle cores, until a bar has a speed of its own.
_START_S = {"vllm": 75.0}
_ACT_S = {"vllm": 20.0}
_QUICKLY_S = 5.0
_QUESTION = DemoRequest(kind="chat", prompt="Explain in one sentence why the sky is blue.")


def demo(
    config: Config = None,
    engine: Annotated[str, typer.Option(help="vllm, or echo: the same without a model.")] = "vllm",
    start_timeout_s: Annotated[float, typer.Option(help="Longest wait for the engines.")] = 900,
) -> None:
    """Start a stack of its own, send 40 mixed prompts through it, then a burst, and show what was served where and why.

    Exit status 0 only if every prompt was answered. Example: bitladder demo --engine echo
    """
    console = Console(stderr=True)
    with private_stack(config, {"worker.engine": engine}) as stack:
        settings = stack.settings
        _wait(stack, console, engine, start_timeout_s)
        failed = asyncio.run(_acts(stack.url, settings, engine, console))
    raise typer.Exit(1 if failed else 0)


async def _acts(url: str, settings: Settings, engine: str, console: Console) -> bool:
    """Show the acts one after the other; return whether a request of theirs was not answered."""
    out = Console(width=None if sys.stdout.isatty() else WIDTH)
    name, model = next(iter(settings.models.items()))
    async with DemoClient(url, name, console, expected_s=_ACT_S.get(engine, _QUICKLY_S)) as client:
        first = await client.send_all("prompts answered", _load_prompts(), _MAX_TOKENS, shows_first=True)
        out.print(request_table(first.served))
        out.print(tier_table(first, model))
        kind = "vLLM" if engine == "vllm" else f"the {engine} engine"
        answered = sum(served.is_answered for served in first.served)
        out.print(f"{answered} of {len(first.served)} prompts were answered by {kind} in {first.wall_s:.1f} s")
        _say(out, waiting_remark(first, name, model))
        tokens = _BURST_TOKENS.get(engine, _MAX_TOKENS)
        batches = [first, *await _burst(client, first, model, out, name=name, tokens=tokens)]
        if engine == "vllm" and len(batches) > 1:
            _say(out, sharing_remark(model))
        batches += await _alone(client, model, engine, out)
    if engine == "vllm":
        _say(out, checkpoint_remark(model, settings.vllm))
    failed = [served for batch in batches for served in batch.served if not served.is_answered]
    for served in failed:
        out.print(f"not answered: {served.prompt[:50]!r}: {served.error or served.job.get('error')}", markup=False)
    return bool(failed)


async def _burst(
    client: DemoClient, first: ServedBatch, model: ModelSettings, out: Console, *, name: str, tokens: int
) -> list[ServedBatch]:
    """Send more to the lowest tier than it lets wait, twice: once the overflow may escalate, once it may not."""
    tier, count = model.tiers[0], model.tiers[0].high + 3 * model.tiers[0].slots
    prompts = [served.prompt for served in first.served if served.is_plain and served.job.get("floor") == tier.name]
    if len(model.tiers) < 2 or not prompts or count > _MAX_BURST:
        out.print(f"no burst: it would take {count} requests for {tier.name}, whose high mark is {tier.high}")
        return []
    burst = [DemoRequest(kind="burst", prompt=prompts[place % len(prompts)]) for place in range(count)]
    escalating = await client.send_all("burst answered", burst, tokens)
    limited = [request.within({"max_tier": tier.name}) for request in burst]
    kept = await client.send_all(f"again, kept at {tier.name}", limited, tokens)
    out.print(burst_table(escalating, kept, model))
    _say(out, burst_remark(escalating, kept, name, model))
    return [escalating, kept]


async def _alone(client: DemoClient, model: ModelSettings, engine: str, out: Console) -> list[ServedBatch]:
    """Ask each tier the same alone; the second answer counts, because the first may find something cold."""
    batches = []
    for tier in model.tiers:
        request = _QUESTION.within({"min_tier": tier.name, "max_tier": tier.name})
        for _ in range(2):
            batch = await client.send_all(f"{tier.name} alone", [request], _MAX_TOKENS)
        batches.append(batch)
    out.print(speed_table(batches, model))
    if engine == "vllm":
        _say(out, speed_remark(batches, model))
    return batches


def _say(out: Console, remark: str) -> None:
    if remark:
        out.print(remark, highlight=False, markup=False)


def _load_prompts() -> list[DemoRequest]:
    """Return the packaged prompts: kind, prompt, and what their envelopes ask for."""
    text = (files("bitladder.cli.demo") / "prompts.jsonl").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    return [DemoRequest(kind=entry.pop("kind"), prompt=entry.pop("prompt"), envelope=entry) for entry in entries]


def _wait(stack: PrivateStack, console: Console, engine: str, timeout_s: float) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeft(),
    )
    with Progress(*columns, console=console) as progress:
        tiers = sum(len(model.tiers) for model in stack.settings.models.values())
        expected_s = _START_S.get(engine, _QUICKLY_S)
        task = progress.add_task(f"starting workers ({engine})", total=tiers, expected_s=expected_s)

        def on_poll(live: Mapping[str, int]) -> None:
            progress.update(task, completed=sum(1 for count in live.values() if count))

        stack.wait_until_live(timeout_s, on_poll)
