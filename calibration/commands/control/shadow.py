"""calibrate shadow: a share of what low tiers answered, run again on the reference in idle slots."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.commands.configuration import load_configuration
from calibration.commands.options import DEFAULT_URL, AsJson, Config, Url, key_option, read_seconds, say
from calibration.control.asking.askers import StackOptions
from calibration.control.metrics_file import check_metrics_path, write_metrics
from calibration.control.shadow.figures_text import as_text
from calibration.control.shadow.ledger import Budget
from calibration.control.shadow.metric_rows import ROWS, values_of
from calibration.control.shadow.run_shadow import Question
from calibration.control.shadow.shadowing import ShadowOptions, run
from calibration.errors import InputError

# By it operators find the jobs, and can cancel them all.
TAG = "shadow"
_Out = Annotated[Path, typer.Option("-o", "--out", help="folder of labels and progress; go on with the same")]
_ApiKey = Annotated[str | None, key_option("the scopes submit, read and ops:read")]
_Capture = Annotated[Path | None, typer.Option(help="captured prompts (default: capture.folder)")]
_Model = Annotated[str, typer.Option(help="whose tiers, where there are several models")]
_Share = Annotated[float, typer.Option(help="of the captured requests, chosen by a hash of their ids")]
_Seed = Annotated[int, typer.Option(min=0, help="another seed, another choice")]
_Requests = Annotated[int, typer.Option(min=1, help="a day (UTC); a label takes four or five")]
_Tokens = Annotated[int | None, typer.Option(min=1, help="read and written a day")]
_Cost = Annotated[float | None, typer.Option(help="a day, in the currency of the prices")]
_LeaveFree = Annotated[float, typer.Option(min=0, max=1, help="share of a tier's slots that stay free")]
_AtOnce = Annotated[int, typer.Option(min=1, max=64, help="labels at a time")]
_MaxWait = Annotated[str, typer.Option(help="how long a pass waits for an idle slot")]
_AnswerTokens = Annotated[int, typer.Option(min=2, max=1024, help="of the answers that are compared")]
_Temperature = Annotated[
    float, typer.Option(min=0, max=2, help="of answers, as the labels of the promise have it; 0: the likeliest")
]
_Measure = Annotated[str, typer.Option(help="the loss within a tier's entry; parts by dots")]
_Threshold = Annotated[float, typer.Option(min=0, help="a request that loses more counts")]
_Interval = Annotated[str | None, typer.Option("--every", help="run on, a pass every 60s, 5m, 1h; else one pass")]
_Once = Annotated[bool, typer.Option("--once", help="one pass, for a timer (default)")]
_Metrics = Annotated[Path | None, typer.Option(help="a .prom file for node_exporter")]


def register(app: typer.Typer) -> None:
    app.command("shadow")(shadow)


def shadow(
    out: _Out,
    url: Url = DEFAULT_URL,
    api_key: _ApiKey = None,
    capture: _Capture = None,
    model: _Model = "",
    share: _Share = 0.01,
    seed: _Seed = 0,
    budget_requests: _Requests = 5000,
    budget_tokens: _Tokens = None,
    budget_cost: _Cost = None,
    leave_free: _LeaveFree = 0.5,
    at_once: _AtOnce = 2,
    max_wait: _MaxWait = "30s",
    answer_tokens: _AnswerTokens = 64,
    temperature: _Temperature = 1.0,
    measure: _Measure = "answer.kl",
    threshold: _Threshold = 0.2,
    interval: _Interval = None,
    once: _Once = False,
    metrics: _Metrics = None,
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
    if once and interval:
        raise InputError("--once and --every exclude each other")
    if metrics:
        check_metrics_path(metrics)
    run(
        _options(locals()),
        read_seconds("--every", interval) if interval else None,
        partial(_show, metrics, as_json),
        say,
    )


def _show(metrics: Path | None, as_json: bool, figures: dict[str, Any]) -> None:
    if metrics:
        write_metrics(metrics, ROWS, values_of(figures))
    typer.echo(json.dumps(figures) if as_json else as_text(figures))


def _options(values: dict[str, Any]) -> ShadowOptions:
    """Return what the command's parameters ask for."""
    settings, capture, cost = load_configuration(values["config"]).capture, values["capture"], values["budget_cost"]
    return ShadowOptions(
        stack=StackOptions(
            values["url"],
            values["api_key"],
            values["model"],
            TAG,
            grace_s=read_seconds("--max-wait", values["max_wait"]),
        ),
        capture=Path(settings.folder).expanduser() if capture is None else capture,
        without_tenants=frozenset(settings.without_tenants),
        share=_positive("--share", values["share"], 1.0),
        budget=Budget(
            requests=values["budget_requests"],
            tokens=values["budget_tokens"],
            cost=None if cost is None else _positive("--budget-cost", cost, 1e9),
        ),
        question=Question(measure=values["measure"], threshold=values["threshold"]),
        **{name: values[name] for name in ("out", "seed", "leave_free", "at_once", "answer_tokens", "temperature")},
    )


def _positive(option: str, value: float, limit: float) -> float:
    if not 0 < value <= limit:
        raise InputError(f"{option} must be above 0 and at most {limit:g}, got {value:g}")
    return value
