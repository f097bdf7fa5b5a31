"""calibrate shadow: a share of what low tiers answered, run again on the reference in idle slots."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.process.signals import ending
from calibration.artifacts.folder import locked, try_writing
from calibration.commands.configuration import load_configuration
from calibration.commands.options import AsJson, Config, say
from calibration.control.asking.askers import StackOptions
from calibration.control.metrics_file import check_metrics_path, write_metrics
from calibration.control.shadow.ledger import Budget
from calibration.control.shadow.metric_rows import ROWS, values_of
from calibration.control.shadow.outcomes import VERDICTS
from calibration.control.shadow.run_shadow import Question
from calibration.control.shadow.shadowing import ShadowOptions, shadowing
from calibration.errors import InputError
from calibration.terminal.tabular import table

DEFAULT_URL = "http://127.0.0.1:8000"
_UNITS = {"s": 1, "m": 60, "h": 3600}
MAX_EVERY_S = 86_400
# By it operators find the jobs, and can cancel them all.
TAG = "shadow"


def register(app: typer.Typer) -> None:
    @app.command("shadow")
    def command(
        out: Annotated[Path, typer.Option("-o", "--out", help="folder of labels and progress; go on with the same")],
        url: Annotated[str, typer.Option(envvar="BITLADDER_URL", help="the intake")] = DEFAULT_URL,
        api_key: Annotated[
            str | None,
            typer.Option(envvar="BITLADDER_API_KEY", help="scopes submit, read, ops:read; as a variable ps hides it"),
        ] = None,
        capture: Annotated[Path | None, typer.Option(help="captured prompts (default: capture.folder)")] = None,
        model: Annotated[str, typer.Option(help="whose tiers, where there are several models")] = "",
        share: Annotated[float, typer.Option(help="of the captured requests, chosen by a hash of their ids")] = 0.01,
        seed: Annotated[int, typer.Option(min=0, help="another seed, another choice")] = 0,
        budget_requests: Annotated[int, typer.Option(min=1, help="a day (UTC); a label takes about seven")] = 5000,
        budget_tokens: Annotated[int | None, typer.Option(min=1, help="read and written a day")] = None,
        budget_cost: Annotated[float | None, typer.Option(help="a day, in the currency of the prices")] = None,
        leave_free: Annotated[float, typer.Option(min=0, max=1, help="share of a tier's slots that stay free")] = 0.5,
        at_once: Annotated[int, typer.Option(min=1, max=64, help="labels at a time")] = 2,
        patience: Annotated[str, typer.Option(help="how long a pass waits for an idle slot")] = "30s",
        answer_tokens: Annotated[int, typer.Option(min=2, max=1024, help="of the answers that are compared")] = 64,
        measure: Annotated[str, typer.Option(help="the loss within a tier's entry; parts by dots")] = "answer.kl",
        threshold: Annotated[float, typer.Option(min=0, help="a request that loses more counts")] = 0.2,
        every: Annotated[str | None, typer.Option(help="run on, a pass every 60s, 5m, 1h; else one pass")] = None,
        once: Annotated[bool, typer.Option("--once", help="one pass, for a timer (default)")] = False,
        metrics: Annotated[Path | None, typer.Option(help="a .prom file for node_exporter")] = None,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Label live traffic: run a share of what low tiers answered again on the reference, in idle slots.

        Nothing is sent while a tier has no slot to spare, and what was sent is withdrawn when somebody waits. SIGTERM
        ends in order. Exit status: 0 after a pass, also where tiers were busy or the budget was used up; 2 for a wrong
        option; 6 where the stack does not answer. docs/calibration/shadow.md explains the figures.

        Example: bitladder calibrate shadow --out var/shadow --share 0.01 --budget-requests 2000

        Example: bitladder calibrate shadow --out var/shadow --every 60s --metrics var/metrics/bitladder_shadow.prom
        """
        if once and every:
            raise InputError("--once and --every exclude each other")
        _check_share(share, "--share")
        if budget_cost is not None and not 0 < budget_cost <= 1e9:
            raise InputError(f"--budget-cost must be above 0, got {budget_cost:g}")
        settings = load_configuration(config).capture
        options = ShadowOptions(
            stack=StackOptions(url, api_key, model, tag=TAG, grace_s=_seconds("--patience", patience)),
            capture=Path(settings.folder).expanduser() if capture is None else capture,
            without_tenants=frozenset(settings.without_tenants),
            out=out,
            share=share,
            seed=seed,
            budget=Budget(requests=budget_requests, tokens=budget_tokens, cost=budget_cost),
            leave_free=leave_free,
            at_once=at_once,
            answer_tokens=answer_tokens,
            question=Question(measure=measure, threshold=threshold),
        )
        _run(options, _seconds("--every", every) if every else None, metrics, as_json=as_json)


def _run(options: ShadowOptions, every_s: float | None, metrics: Path | None, *, as_json: bool) -> None:
    if metrics:
        check_metrics_path(metrics)
    try_writing(options.out, private=True)

    def show(figures: dict[str, Any]) -> None:
        if metrics:
            write_metrics(metrics, ROWS, values_of(figures))
        typer.echo(json.dumps(figures) if as_json else _text(figures))

    def refuse() -> None:
        raise InputError(f"another shadow works in --out {str(options.out)!r}")

    with locked(options.out.parent, options.out.name, refuse):
        asyncio.run(_until_ended(options, every_s, show))


async def _until_ended(options: ShadowOptions, every_s: float | None, show: Any) -> None:  # noqa: ANN401
    async with shadowing(options, say) as (shadow, gate):
        for number in ending():
            asyncio.get_running_loop().add_signal_handler(number, gate.stop)
        while True:
            show(await shadow.run_pass())
            if every_s is None or await gate.stopped_within(every_s):
                return


def _check_share(value: float, option: str) -> None:
    if not 0 < value <= 1:
        raise InputError(f"{option} must be above 0 and at most 1, got {value:g}")


def _seconds(option: str, text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smh])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= MAX_EVERY_S:
        raise InputError(f"{option} must be a time such as 60s, 5m or 1h, of a day at most, got {text!r}")
    return seconds


def _text(figures: dict[str, Any]) -> str:  # Any: JSON
    prompts, usage, estimate = figures["prompts"], figures["usage"], figures["estimate"]
    rows = [
        (
            tier,
            f"{of['labels']:,}",
            f"{of['mean_loss']['value']:.4g} {_interval(of['mean_loss'], '.4g')}",
            f"{of['over']['share']:.1%} {_interval(of['over'], '.1%')}",
            *(f"{of[verdict]['share']:.0%}" if verdict in of else "" for verdict in VERDICTS),
        )
        for tier, of in [*figures["tiers"].items(), ("all traffic", figures["all_traffic"])]
        if of["labels"]
    ]
    skipped = ", ".join(f"{reason} {count:,}" for reason, count in prompts["skipped"].items())
    lines = [
        table(
            ("served by", "labels", figures["measure"], f"over {figures['threshold']:g}", *VERDICTS),
            rows,
            title=f"against {figures['reference']}, with intervals of 95 %",
        )
        if rows
        else "no label yet",
        f"this pass: {figures['pass']['labelled']:,} labels; ended: {figures['pass']['ended']}",
        f"prompts: {prompts['seen']:,} captured, {prompts['chosen']:,} chosen, {prompts['labelled']:,} labelled, "
        f"{prompts['waiting']:,} waiting" + (f"; not run again: {skipped}" if skipped else ""),
        f"today: {_usage(usage['today'])}; budget: "
        + ", ".join(f"{name} {limit:,.6g}" for name, limit in usage["budget_per_day"].items()),
        f"a label takes {_usage(estimate['of_a_label'])}; what waits would take {_usage(estimate['of_what_waits'])}",
    ]
    if (saved := figures["savings"])["requests"]:
        lines.append(
            f"saved per request: {saved['per_request']:.3g} ({saved['share'] or 0:.1%} of all on "
            f"{figures['reference']}), by {saved['requests']:,} requests of low tiers"
        )
    return "\n".join(lines)


def _interval(of: dict[str, Any], form: str) -> str:  # Any: JSON
    low, high = of["interval"]
    return f"[{low:{form}}, {high:{form}}]"


def _usage(usage: dict[str, Any]) -> str:  # Any: JSON
    return f"{usage['requests']:,} requests, {usage['tokens']:,} tokens, cost {usage['cost']:.4g}"
