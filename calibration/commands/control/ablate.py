"""calibrate ablate: quality against cost of every policy, on labels that none of them was fitted on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.artifacts.folder import require_outside
from calibration.commands.control.policy_file import read_policy
from calibration.commands.control.tier_costs import read_costs
from calibration.commands.options import AsJson, progress_console, say
from calibration.control.ablation.page import COLUMNS, cascade_sentences, points, remarks, rows
from calibration.control.ablation.run_ablation import PROMPT_WEIGHT, Question, ablate
from calibration.control.ablation.write_report import PAGE, check_out, with_facts, write_report
from calibration.terminal.escape import printable
from calibration.terminal.progress import Steps
from calibration.terminal.tabular import table

_TITLES = {"random": "held out by chance", "source": "held out by source"}


def register(app: typer.Typer) -> None:
    @app.command("ablate")
    def command(
        labels: Annotated[Path, typer.Argument(help="JSONL, in gzip or not: features, and losses of each tier")],
        out: Annotated[Path, typer.Option("-o", "--out", help="folder of the report")],
        cost: Annotated[list[str], typer.Option(help="TIER=COST of each tier; the dearest one is the top")],
        measure: Annotated[str, typer.Option(help="the loss within a tier's entry; parts by dots")] = "answer.kl",
        agreement: Annotated[str, typer.Option(help="a loss from 0 to 1 beside it: 1 - agreement")] = "answer.flips",
        sure: Annotated[
            list[str], typer.Option(help="in the lowest tier's entry, how sure it was of its answer: a cascade of each")
        ] = ["own.entropy", "own.margin"],  # noqa: B006  (typer copies it)
        prompt_weight: Annotated[
            float, typer.Option(min=0, max=10, help="cost of a prompt's token, of an answer's one: what is gone early")
        ] = PROMPT_WEIGHT,
        policy: Annotated[Path | None, typer.Option(help="a policy's file to compare, as `tune` writes it")] = None,
        resamples: Annotated[int, typer.Option(min=20, max=10_000, help="of the labels, for the intervals")] = 1000,
        seed: Annotated[int, typer.Option(min=0, help="the same seed, the same figures")] = 0,
        as_json: AsJson = False,
    ) -> None:
        """Compare all policies with random shares, the article's rule and the oracle, by what they cost and lose.

        Single features, everything that can be fitted, and cascades, on labels that they were not fitted on: drawn by
        chance, and by source. Writes report.json, report.html and the plots; docs/calibration/ablate.md says how to
        read them.

        Example: bitladder calibrate ablate var/labels/labels.jsonl --cost int4=0.3 --cost fp8=1 -o var/ablation

        Example: bitladder calibrate ablate var/labels/labels.jsonl --cost int4=0.3 --cost fp8=1 -o var/ablation
        --policy policy.json --json
        """
        folder = out.expanduser().resolve()
        require_outside(labels, "LABELS", folder, "--out")
        check_out(folder)
        question = Question(
            costs=read_costs(cost),
            measure=measure,
            agreement=agreement,
            sure=tuple(sure),
            policy=None if policy is None else read_policy(policy),
            resamples=resamples,
            seed=seed,
            prompt_weight=prompt_weight,
        )
        _run(labels, folder, question, as_json=as_json)


def _run(labels: Path, folder: Path, question: Question, *, as_json: bool) -> None:
    steps, started_s = Steps(progress_console()), time.monotonic()
    with steps.showing(), steps.step("ablate", "comparing policies", expected_s=None) as advance:
        figures = ablate(labels, question, advance)
        report = with_facts(figures, labels)
    with steps.showing(), steps.step("ablate", "drawing", expected_s=None):
        write_report(report, folder)
    say(f"{report['labels']:,} labels compared in {time.monotonic() - started_s:.1f} s")
    typer.echo(json.dumps(report) if as_json else _text(report, folder))


def _text(report: dict[str, Any], folder: Path) -> str:  # Any: JSON
    lines = []
    for split in report["splits"]:
        lines += [table(COLUMNS, rows(report, split), title=_TITLES[split]), *cascade_sentences(report, split), ""]
    lines += [*remarks(report), *points(report)]
    lines += [f"left out: {printable(name)}: {why}" for name, why in report["left_out"].items()]
    if skipped := report["lines_without_every_tier"]:
        lines.append(f"{skipped:,} lines without a loss of every tier were not used")
    lines.append(str(folder / PAGE))
    return "\n".join(lines)
