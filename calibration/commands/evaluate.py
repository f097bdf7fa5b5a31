"""calibrate evaluate: how good, fast and large checkpoints are, measured through the engine that serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.errors import ConfigError
from bitladder.settings.sections import Settings
from calibration.artifacts.digest import file_digest
from calibration.artifacts.evaluation_report import Report, encode_report, read_report
from calibration.artifacts.folder import require_outside, try_writing, writing
from calibration.artifacts.prompt_losses import NamedSource, encode_lines
from calibration.commands.configuration import load_configuration
from calibration.commands.engine_log import log_to_stderr
from calibration.commands.options import AsJson, Config, progress_console, say
from calibration.errors import BadReportError, CalibrationError, InputError
from calibration.evaluate.candidates import CheckpointArg, find_candidates, find_served
from calibration.evaluate.choose_measures import choose_measures
from calibration.evaluate.contamination import refuse_calibrated
from calibration.evaluate.evaluation_page import evaluation_page
from calibration.evaluate.machine import engine_version, versions
from calibration.evaluate.measures.measure import EvaluationOptions
from calibration.evaluate.prompt_table import PromptTable
from calibration.evaluate.report_table import rows
from calibration.evaluate.run_evaluation import Evaluator, ReportHeader, evaluate, reasons
from calibration.evaluate.store import Store, write_whole
from calibration.sandbox.choose import AUTO
from calibration.terminal.escape import printable
from calibration.terminal.progress import Steps
from calibration.terminal.tabular import table

OUT = Path("var/evaluation")
RESULTS = "results"
# The first one is written first: it tells whose folder it is.
FILES = ("report.json", "report.html", "quality-cost.png", "prompts.jsonl")
Checkpoints = Annotated[
    list[str],
    typer.Argument(help="folders of checkpoints, or TIER=FOLDER", metavar="[TIER=]FOLDER", show_default=False),
]
_Reference = Annotated[
    str, typer.Option(help="the checkpoint that the others are held against", metavar="[TIER=]FOLDER")
]

_Problems = Annotated[
    int | None,
    typer.Option(min=0, max=164, help="HumanEval problems; 0: none (default: all if the held-out set has programs)"),
]
Answers = Annotated[int, typer.Option(min=0, help="answers of the reference to follow, of each kind; 0: none")]
_AnswerTokens = Annotated[int, typer.Option(min=1, max=4096, help="of each answer, at most")]
Chat = Annotated[
    bool | None,
    typer.Option("--chat/--no-chat", help="ask through the chat template (default: where the reference has one)"),
]
_WithoutServed = Annotated[
    bool, typer.Option("--without-served", help="do not measure what tiers serve beside what would replace it")
]


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate_command)


def evaluate_command(
    checkpoints: Checkpoints,
    reference: _Reference,
    model: Annotated[str, typer.Option(help="model of the configuration (default: the only one)")] = "",
    heldout: Annotated[Path | None, typer.Option(help='JSONL of {"text": …, "kind": …} (default: packaged)')] = None,
    tokens: Annotated[int, typer.Option(min=2, help="held-out tokens of each kind")] = 4096,
    top: Annotated[int, typer.Option(min=1, max=1024, help="likely tokens that divergence looks at")] = 64,
    problems: _Problems = None,
    sandbox: Annotated[str, typer.Option(help="bubblewrap, monty, or auto: the first that works")] = AUTO,
    tasks: Annotated[Path | None, typer.Option(help="JSONL of own tasks (docs/calibration/evaluate.md)")] = None,
    answers: Answers = 24,
    answer_tokens: _AnswerTokens = 64,
    chat: Chat = None,
    without_served: _WithoutServed = False,
    out: Annotated[Path, typer.Option(help="folder of report.json, report.html, prompts.jsonl, results/")] = OUT,
    force: Annotated[bool, typer.Option("--force", help="measure again what was measured before")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure checkpoints through the engine that serves them: quality, speed and memory, with intervals.

    Exit status 1 when one could not be measured: the report has the others.

    Example: bitladder calibrate evaluate int4=~/models/new ~/models/int8 --reference ~/models/bf16 --problems 40
    """
    read = load_configuration(config)
    log_to_stderr(read.log)
    options = EvaluationOptions(
        heldout=heldout,
        tokens=tokens,
        top=top,
        problems=problems,
        sandbox=sandbox,
        tasks=tasks,
        answers=answers,
        answer_tokens=answer_tokens,
        chat=chat,
    )
    arguments = [CheckpointArg.read(text) for text in (reference, *checkpoints)]
    out = out.expanduser()
    _check_out(out, arguments)
    store, with_served = Store(out / RESULTS), not without_served
    report, prompts = measure(read, model, arguments, options, store, force=force, with_served=with_served)
    _write(report, prompts, out)
    _show(report, out, as_json=as_json)


def _show(report: Report, out: Path, *, as_json: bool) -> None:
    """Print the report; raise if it is not of all checkpoints."""
    if as_json:
        typer.echo(encode_report(report), nl=False)
    else:
        typer.echo(_table(report))
        say(f"{', '.join(FILES)} are in {out}")
    if report.failed:
        count = len(report.tiers) + len(report.failed)
        raise CalibrationError(
            f"{len(report.failed)} of {count} checkpoints could not be measured:\n{reasons(report.failed)}"
        )


def _check_out(out: Path, arguments: Sequence[CheckpointArg]) -> None:
    """Raise if the report cannot be written, or would replace something else, before hours are spent."""
    for argument in arguments:
        require_outside(out, "--out", argument.folder.expanduser(), "a checkpoint that is measured")
    report, *other_files = (out / name for name in FILES)
    if report.exists():
        try:
            read_report(report)
        except BadReportError as error:
            raise InputError(f"--out: {error}; it would be overwritten, choose another folder") from error
    elif existing := [str(path) for path in other_files if path.exists()]:
        raise InputError(f"--out: there is no {report}, so {existing[0]} is no evaluation's: choose another folder")
    for folder in (out, out / RESULTS):
        try_writing(folder, private=True)


def measure(
    settings: Settings,
    model: str,
    arguments: Sequence[CheckpointArg],
    options: EvaluationOptions,
    store: Store,
    *,
    force: bool,
    with_served: bool,
) -> tuple[Report, PromptTable]:
    """Measure these checkpoints against the first of them."""
    name = model or _only_model(settings)
    try:
        model_settings = settings.model(name)
    except ConfigError as error:
        raise InputError(str(error)) from error
    plan = choose_measures(options)
    for note in plan.notes:
        say(note)
    reference, *candidates = checkpoints = find_candidates(arguments, model_settings, settings.vllm, say)
    served = find_served(candidates, model_settings, settings.vllm, say) if with_served else {}
    refuse_calibrated(plan.own_texts, [*checkpoints, *served.values()])
    engine = engine_version(settings.vllm)
    evaluation = Evaluator(
        measures=plan.measures,
        vllm=settings.vllm,
        engine_version=engine,
        top=options.top,
        store=store,
        steps=Steps(progress_console()),
        sources={key: f"{plan.source_names.get(key, key)} (sha256 {sha256})" for key, sha256 in plan.sources.items()},
        prompts=PromptTable({text.id: text for text in plan.texts}),
        force=force,
    )
    about = ReportHeader(
        model=name,
        sources=plan.sources,
        source_names=plan.source_names,
        versions=versions(engine) | plan.versions,
        settings=_settings_of(options, settings),
        publish=settings.publish,
    )
    return asyncio.run(evaluate(reference, candidates, evaluation, about, served)), evaluation.prompts


def _settings_of(options: EvaluationOptions, settings: Settings) -> dict[str, Any]:  # Any: JSON
    """Return what the figures and the verdicts depend on, as JSON."""
    chosen = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    return {"evaluate": chosen, "publish": settings.publish.model_dump(exclude={"file", "keep"})}


def _only_model(settings: Settings) -> str:
    if len(settings.models) != 1:
        raise InputError(f"--model must be one of {', '.join(settings.models)}: there are several")
    return next(iter(settings.models))


def _write(report: Report, prompts: PromptTable, out: Path) -> None:
    from calibration.evaluate.plot import quality_cost_png  # matplotlib takes half a second to import

    _keep_former(out / FILES[0])
    png = quality_cost_png(report)
    heldout = NamedSource(name=report.source_names.get("heldout", ""), sha256=report.sources.get("heldout", ""))
    lines = encode_lines(prompts.lines(heldout, report.reference))
    page = evaluation_page(report, png, {tier.tier: prompts.worst(tier.tier) for tier in report.tiers}).encode()
    for name, content in zip(FILES, (encode_report(report), page, png, lines), strict=True):
        write_whole(out / name, content)


def _keep_former(report: Path) -> None:
    """Move the report of an earlier evaluation aside, under its digest: a release may name it by that."""
    if report.exists():
        with writing(report.parent):
            report.rename(report.with_name(f"{report.stem}-{file_digest(report)[:16]}{report.suffix}"))


def _table(report: Report) -> str:
    names = [printable(tier.tier) for tier in report.tiers]
    return table(
        ("metric", *names), [(row.title, *row.cells) for row in rows(report)], title="[low, high]: 95 % interval"
    )
