"""A folder of labels: labels.jsonl, report.json, report.html, and the journal of the run that makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from calibration.artifacts.digest import file_digest
from calibration.artifacts.folder import replace_file, writing
from calibration.artifacts.html_report import Section, html_page
from calibration.control.asking.askers import Askers
from calibration.control.labelling.label_estimate import Estimate, estimate
from calibration.control.labelling.label_journal import Journal
from calibration.control.labelling.label_lines import SCHEMA, LabelLine, encode_lines
from calibration.control.labelling.label_losses import TierLabel, joined
from calibration.control.labelling.label_prompts import LabelPrompt, draw, read_prompts
from calibration.control.labelling.label_report import describe_labels
from calibration.control.labelling.run_labelling import Labeller, LabelOptions, Probe
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.machine import machine
from calibration.sandbox.choose import AUTO, choose_sandbox
from calibration.terminal.progress import Steps

JOURNAL = "journal.jsonl"
# The first one is what is read; the others are for people.
FILES = ("labels.jsonl", "report.json", "report.html")
_NAMED_FAILURES = 20
_NOTES = (
    "KL is a lower bound (docs/calibration/evaluate.md): of each distribution the likeliest tokens are compared, and "
    "all others as one.",
    "Intervals are of 95 %: bootstrap over prompts, Wilson's for tasks.",
    "Reliability: how much of the differences between prompts would come again with other answers, from the two halves "
    "of each answer, or from several answers. No score can have a rank correlation with the labels that is above its "
    "square root (highest).",
)


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """What is labelled, and how."""

    prompts: Path
    out: Path
    reference: str
    tiers: Sequence[str]
    count: int | None = None  # None: all prompts of the file
    seed: int = 0
    answers: int = 1  # of each prompt
    options: LabelOptions = field(default_factory=LabelOptions)
    keep_text: bool = False
    dry_run: bool = False
    sandbox: str = AUTO
    versions: dict[str, str] = field(default_factory=dict)


async def label_set(
    askers: Askers, request: LabelRequest, steps: Steps, on_estimate: Callable[[Estimate], None]
) -> dict[str, Any]:  # Any: JSON
    """Label prompts, and return the report; with `dry_run` the estimate, after a few prompts.

    Raises:
        InputError: the prompts or the folder cannot be used.
        EngineFailedError: what was labelled until then is in the folder, and a next run goes on.

    """
    prompts, repeated = read_prompts(request.prompts)
    drawn = draw(prompts, request.count, request.seed)
    turns = [turn for prompt in drawn for turn in prompt.turns(request.answers)]
    has_code = any(prompt.check and prompt.check.code for prompt in drawn)
    sandbox = choose_sandbox(request.sandbox) if has_code else None
    _prepare(request.out)
    with Journal.opened(request.out / JOURNAL) as journal, steps.showing():
        if journal.repaired:
            steps.note("", f"the last line of {JOURNAL} was cut off: it is measured again")
        labeller = Labeller(
            askers=askers,
            reference=request.reference,
            tiers=request.tiers,
            options=request.options,
            journal=journal,
            sandbox=sandbox,
        )
        waiting = [turn for turn in turns if labeller.missing(turn)]
        left = len({turn.id for turn in waiting})
        steps.note("", f"{len(drawn):,} prompts ({repeated} repeated), {len(drawn) - left:,} were labelled before")
        guess = await _run(labeller, turns, waiting, request, steps, on_estimate)
        if request.dry_run:
            known = {"dry_run": True, "prompts": len(drawn), "to_label": left}
            return known | {"estimate": guess and asdict(guess)}
        lines = _lines(labeller, drawn, request)
        report = _report(labeller, request, drawn, lines)
        _write(request, lines, report)
        if len(lines) == len(drawn) and not request.keep_text:
            journal.drop_answers()
    return report


def _prepare(out: Path) -> None:
    """Make the folder; raise InputError where it has files of these names that no labelling run has written."""
    strangers = [name for name in FILES if (out / name).exists()]
    if strangers and not (out / JOURNAL).exists():
        raise InputError(f"--out: there is no {out / JOURNAL}, so {strangers[0]} is no labelling run's: take another")
    with writing(out):
        out.mkdir(mode=0o700, parents=True, exist_ok=True)


async def _run(
    labeller: Labeller,
    turns: Sequence[LabelPrompt],
    waiting: Sequence[LabelPrompt],
    request: LabelRequest,
    steps: Steps,
    on_estimate: Callable[[Estimate], None],
) -> Estimate | None:
    """Label, and return what was estimated before most of it; where an engine fails, write what there is."""
    estimates: list[Estimate] = []

    def on_probe(probe: Probe) -> bool:
        estimates.append(estimate(probe, waiting, labeller))
        on_estimate(estimates[0])
        return not request.dry_run

    labeller.on_probe = on_probe
    try:
        with steps.step("", "labelling", expected_s=None) as labeller.advance:
            await labeller.run(turns)
    except EngineFailedError:
        _write_some(request, _lines(labeller, [turn for turn in turns if not turn.turn], request))
        raise
    return estimates[0] if estimates else None


def _lines(labeller: Labeller, prompts: Sequence[LabelPrompt], request: LabelRequest) -> list[LabelLine]:
    """Return the lines of the prompts of which every tier was measured, in their order in the draw."""
    digests = {tier: labeller.askers.checkpoint(tier) for tier in (labeller.reference, *labeller.tiers)}
    lines = []
    for prompt in prompts:
        answered, measured = labeller.answered(prompt), _measured(labeller, prompt, request.answers)
        if answered is None or len(measured) < len(labeller.tiers):
            continue
        of_reference = TierLabel(own_answer=answered.own_answer, task=answered.task)
        line = LabelLine(
            schema=SCHEMA,
            id=prompt.id,
            source=prompt.source,
            kind=prompt.kind,
            form=answered.form,
            features=prompt.features(answered.form),
            reference=labeller.reference,
            checkpoints=digests,
            tiers=measured | {labeller.reference: of_reference},
            prompt=prompt.text if request.keep_text else None,
        )
        lines.append(line)
    return lines


def _measured(labeller: Labeller, prompt: LabelPrompt, answers: int) -> dict[str, TierLabel]:
    """Return the labels of the tiers that were measured along all answers."""
    first, *others = (labeller.measured(turn) for turn in prompt.turns(answers))
    labels = {}
    for tier, label in first.items():
        if all(tier in other for other in others):
            along = [at.answer for at in (label, *(other[tier] for other in others)) if at.answer]
            labels[tier] = msgspec.structs.replace(label, answer=joined(along) if along else None)
    return labels


def _report(
    labeller: Labeller, request: LabelRequest, drawn: Sequence[LabelPrompt], lines: Sequence[LabelLine]
) -> dict[str, Any]:  # Any: JSON
    spent = labeller.askers.spent()
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompts": {"file": str(request.prompts), "sha256": file_digest(request.prompts), "seed": request.seed},
        "labels": len(lines),
        "not_labelled": len(drawn) - len(lines),
        "failures": dict(list(labeller.failures.items())[:_NAMED_FAILURES]),
        "reference": request.reference,
        "checkpoints": {tier: labeller.askers.checkpoint(tier) for tier in (request.reference, *request.tiers)},
        "settings": {"answers": request.answers, **asdict(request.options)},
        "sources": len({line.source for line in lines}),
        "machine": machine(),
        "versions": request.versions,
        "spent": asdict(spent) if spent else None,
        "tiers": describe_labels(lines),
    }


def _png(report: dict[str, Any]) -> bytes:  # Any: JSON
    if not report["tiers"]:
        return b""
    from calibration.control.labelling.label_plot import kinds_png

    return kinds_png(report["tiers"], report["reference"])


def _write_some(request: LabelRequest, lines: Sequence[LabelLine]) -> None:
    """Write what a run that failed has, unless an earlier one with fewer tiers or answers has left more."""
    file = request.out / FILES[0]
    before = file.read_bytes().count(b"\n") if file.exists() else 0
    if len(lines) >= before:
        _write(request, lines, {})


def _write(request: LabelRequest, lines: Sequence[LabelLine], report: dict[str, Any]) -> None:  # Any: JSON
    labels, figures, page = FILES
    files: dict[str, Callable[[], bytes]] = {labels: lambda: encode_lines(lines)}
    if report:
        files[figures] = lambda: json.dumps(report, indent=1).encode() + b"\n"
        files[page] = lambda: label_page(report, _png(report)).encode()
    with writing(request.out):
        for name, content in files.items():  # one after another: the labels are there whatever becomes of the page
            replace_file(request.out / name, content(), mode=0o600 if request.keep_text else 0o666)


def label_page(report: dict[str, Any], png: bytes) -> str:  # Any: JSON
    """Return the report as one page."""
    header = ("tier", "measure", "mean", "95 %", "prompts")
    rows = [
        (tier, name, f"{mean['value']:.4f}", f"{mean['low']:.4f} to {mean['high']:.4f}", str(mean["n"]))
        for tier, figures in report["tiers"].items()
        for name, mean in figures["means"].items()
    ]
    sections = [Section(heading="Mean losses", header=header, rows=rows)]
    if png:
        sections.append(Section(heading="By kind", png=png))
    reliabilities = [_reliability_row(tier, figures) for tier, figures in report["tiers"].items()]
    names = ("tier", "between parts", "of the label", "highest", "with entropy", "with zlib ratio")
    sections.append(Section(heading="Reliability, and rank correlations", header=names, rows=reliabilities))
    named = ("checkpoints", "settings", "machine", "versions", "prompts")
    facts = [(name, json.dumps(report[name])) for name in named]
    sections.append(Section(heading="How", header=("what", ""), rows=facts))
    counts = f"{report['labels']:,} prompts from {report['sources']} sources, against {report['reference']}"
    return html_page("Labels", f"{counts}; {report['made_at']}", sections, _NOTES)


def _reliability_row(tier: str, figures: dict[str, Any]) -> tuple[str, ...]:  # Any: JSON
    again = figures["reliability"] or {}
    shares = [f"{again[name]:.2f}" if again else "" for name in ("between", "whole", "highest")]
    return (tier, *shares, *("" if value is None else f"{value:+.2f}" for value in figures["spearman"].values()))
