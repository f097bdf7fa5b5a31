"""calibrate evaluate: how good, fast and large checkpoints are, measured through the engine that serves them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from calibration.commands.options import AsJson, Config, progress_console
from calibration.errors import InputError
from calibration.evaluate.candidates import Given, find_candidates
from calibration.evaluate.machine import engine_version, versions
from calibration.evaluate.page import html_page
from calibration.evaluate.plan import Wish, make_plan
from calibration.evaluate.plot import quality_cost_png
from calibration.evaluate.rows import rows
from calibration.evaluate.run import About, Evaluation, evaluate
from calibration.evaluate.store import Store, write_whole
from calibration.report import Report, encode_report
from calibration.sandbox.choose import AUTO
from calibration.steps import Steps
from dispatcher.errors import ConfigError
from dispatcher.sections import Settings
from dispatcher.settings import load_settings

OUT = Path("var/evaluation")
Checkpoints = Annotated[
    list[str],
    typer.Argument(help="folders of checkpoints, or TIER=FOLDER", metavar="[TIER=]FOLDER", show_default=False),
]
Reference = Annotated[
    str, typer.Option(help="the checkpoint that the others are held against", metavar="[TIER=]FOLDER")
]


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate_command)


def evaluate_command(
    checkpoints: Checkpoints,
    reference: Reference,
    model: Annotated[str, typer.Option(help="model of the configuration (default: the only one)")] = "",
    heldout: Annotated[Path | None, typer.Option(help='JSONL of {"text": …, "kind": …} (default: packaged)')] = None,
    tokens: Annotated[int, typer.Option(min=2, help="held-out tokens of each kind")] = 4096,
    top: Annotated[int, typer.Option(min=1, max=1024, help="likely tokens that divergence looks at")] = 64,
    problems: Annotated[int, typer.Option(min=0, max=164, help="HumanEval problems; 0: none")] = 164,
    sandbox: Annotated[str, typer.Option(help="bubblewrap, monty, or auto: the first that works")] = AUTO,
    tasks: Annotated[Path | None, typer.Option(help="JSONL of own tasks (docs/calibration.md)")] = None,
    out: Annotated[Path, typer.Option(help="folder of report.json, report.html, quality-cost.png, results/")] = OUT,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure checkpoints through the engine that serves them: quality, speed and memory, with intervals.

    Example: bitladder calibrate evaluate int4=~/models/new ~/models/int8 --reference ~/models/bf16 --problems 40
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the result
    wish = Wish(heldout=heldout, tokens=tokens, top=top, problems=problems, sandbox=sandbox, tasks=tasks)
    given = [Given.read(text) for text in (reference, *checkpoints)]
    report = measure(_settings(config), model, given, wish, out)
    _write(report, out)
    if as_json:
        typer.echo(encode_report(report), nl=False)
    else:
        Console().print(_table(report))
        progress_console().print(f"report.json, report.html and quality-cost.png are in {out}", highlight=False)


def measure(settings: Settings, model: str, given: Sequence[Given], wish: Wish, out: Path) -> Report:
    """Measure these checkpoints against the first of them."""
    name = model or _only_model(settings)
    try:
        its = settings.model(name)
    except ConfigError as error:
        raise InputError(str(error)) from error
    plan = make_plan(wish)
    reference, *candidates = find_candidates(given, its, settings.vllm)
    engine = engine_version(settings.vllm)
    evaluation = Evaluation(
        measures=plan.measures,
        vllm=settings.vllm,
        engine_version=engine,
        top=wish.top,
        store=Store(out / "results"),
        steps=Steps(progress_console()),
    )
    about = About(model=name, sources=plan.sources, versions=versions(engine, plan.sandbox))
    return asyncio.run(evaluate(reference, candidates, evaluation, about))


def _settings(config: str | None) -> Settings:
    try:
        return load_settings(config).settings
    except ConfigError as error:
        raise InputError(str(error)) from error


def _only_model(settings: Settings) -> str:
    if len(settings.models) != 1:
        raise InputError(f"--model must be one of {', '.join(settings.models)}: there are several")
    return next(iter(settings.models))


def _write(report: Report, out: Path) -> None:
    png = quality_cost_png(report)
    write_whole(out / "quality-cost.png", png)
    write_whole(out / "report.html", html_page(report, png).encode())
    write_whole(out / "report.json", encode_report(report))


def _table(report: Report) -> Table:
    table = Table("metric", *(tier.tier for tier in report.tiers), caption=Text("[low, high]: 95 % interval"))
    for row in rows(report):
        table.add_row(row.title, *map(Text, row.cells), style="dim" if row.title.startswith(" ") else "")
    return table
