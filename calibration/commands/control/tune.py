"""calibrate tune: a policy of measured losses, with a limit that a promise allows."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from calibration.artifacts.folder import replace_file
from calibration.commands.options import AsJson
from calibration.control.losses import read_labels
from calibration.control.tuning import Question, tune
from calibration.errors import InputError, UnprovenError
from calibration.terminal.tabular import table


class Promise(StrEnum):
    """What is promised: see docs/calibration/control-loop.md."""

    HIGH_PROBABILITY = "high-probability"
    MEAN = "mean"


def register(app: typer.Typer) -> None:
    @app.command("tune")
    def command(
        labels: Annotated[Path, typer.Argument(help="JSONL, in gzip or not: features, and losses of each tier")],
        out: Annotated[Path, typer.Option("-o", "--out", help="the policy's file")],
        cost: Annotated[list[str], typer.Option(help="TIER=COST of every tier; the dearest one is the top")],
        threshold: Annotated[float, typer.Option(min=0, help="a request that loses more than this counts")],
        measure: Annotated[str, typer.Option(help="the loss within a tier's entry; parts by dots")] = "answer.kl",
        alpha: Annotated[float, typer.Option(help="the largest share of requests that may lose more")] = 0.05,
        delta: Annotated[float, typer.Option(help="1 - the confidence")] = 0.05,
        promise: Annotated[Promise, typer.Option(help="with confidence 1 - delta, or on average only")] = (
            Promise.HIGH_PROBABILITY
        ),
        seed: Annotated[int, typer.Option(min=0, help="how the labels are divided")] = 0,
        as_json: AsJson = False,
    ) -> None:
        """Fit what each tier loses, and write the policy that uses the cheapest tiers as far as a promise allows.

        Exit status 1, and no policy, where the labels cannot promise it; how many more it takes is said.

        Example: bitladder calibrate tune var/evaluation/prompts.jsonl -o policy.json --cost int4=0.3 --cost bf16=1
        --threshold 0.2
        """
        question = Question(
            costs=_costs(cost),
            measure=measure,
            threshold=threshold,
            alpha=_share(alpha, "--alpha"),
            delta=_share(delta, "--delta"),
            promise=promise.value,
            seed=seed,
        )
        _run(labels, out, question, as_json=as_json)


def _run(path: Path, out: Path, question: Question, *, as_json: bool) -> None:
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out must be a file in a folder that exists, got {str(out)!r}")
    labels, skipped = read_labels(path, question.ladder, question.measure)
    form, figures = tune(labels, question)
    figures = {"policy": str(out) if form else None, "lines_without_every_tier": skipped, **figures}
    if form is not None:
        _write(out, msgspec.json.format(msgspec.json.encode(form), indent=1) + b"\n")
    typer.echo(json.dumps(figures) if as_json else _text(figures, question))
    if form is None:
        raise UnprovenError(_next(figures["next"], question))


def _share(value: float, option: str) -> float:
    if not 0 < value < 1:
        raise InputError(f"{option} must be above 0 and below 1, got {value:g}")
    return value


def _write(out: Path, content: bytes) -> None:
    try:
        replace_file(out, content)
    except OSError as error:
        raise InputError(f"cannot write --out {str(out)!r}: {error.strerror or error}") from error


def _costs(options: list[str]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for option in options:
        tier, _, number = option.partition("=")
        try:
            costs[tier] = float(number)
        except ValueError:
            raise InputError(f"--cost must be TIER=COST, as int4=0.3, got {option!r}") from None
        if not tier or not 0 <= costs[tier] <= 1e9:
            raise InputError(f"--cost must be TIER=COST with a cost from 0 to 1e9, got {option!r}")
    if len(costs) < 2:
        raise InputError(f"--cost must name two tiers or more, got {', '.join(costs) or 'none'}")
    return costs


def _text(figures: dict[str, Any], question: Question) -> str:  # Any: JSON
    held_out = figures["held_out"]
    rows = [
        (f"all {tier}", *(f"{alone[name]:.4g}" for name in ("cost", "loss")), f"{alone['over']:.1%}", "")
        for tier, alone in held_out["alone"].items()
    ]
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in held_out["shares"].items())
    rows.append(("tuned", f"{held_out['cost']:.4g}", f"{held_out['loss']:.4g}", f"{held_out['over']:.1%}", shares))
    counts = figures["labels"]
    lines = [
        table(
            ("policy", "cost", "added loss", f"over {question.threshold:g}", "requests"),
            rows,
            title=f"{counts['test']} held-out labels (fitted on {counts['fit']}, promised by {counts['promise']})",
        ),
        "Spearman with the lowest tier's loss: "
        + ", ".join(f"{name} {value:+.2f}" for name, value in figures["spearman"].items() if value is not None),
        *(f"left out: {tier}: {reason}" for tier, reason in figures["left_out"].items()),
    ]
    if skipped := figures["lines_without_every_tier"]:
        lines.append(f"{skipped:,} lines without a loss of every tier were not used")
    if figures["policy"] is not None:
        held = (
            f"with confidence {1 - question.delta:g}" if question.promise == Promise.HIGH_PROBABILITY else "on average"
        )
        lines.append(
            f"promised, {held}: over all traffic like these labels, at most {question.alpha:.3g} of requests lose more "
            f"than {question.threshold:g} ({question.measure})"
        )
        if figures["next"] is not None:
            lines.append(_next(figures["next"], question))
        lines.append(figures["policy"])
    return "\n".join(lines)


def _next(step: dict[str, Any], question: Question) -> str:  # Any: JSON
    begin = f"the next step would have {step['share_over']:.2%} over {question.threshold:g}"
    if step["more_labels"] is None:
        return f"{begin}: no number of labels proves {question.alpha:.3g} of that"
    return f"{begin}: about {step['more_labels']:,} more labels would prove it, were that its true share"
