"""calibrate confidence: the calibration file of a cascade, from labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.artifacts.folder import require_other, write_output
from calibration.commands.options import AsJson
from calibration.control.predictors.confidence_curve import Aim, calibration_file, fit_curve, read_answers
from calibration.terminal.tabular import table


def register(app: typer.Typer) -> None:
    @app.command("confidence")
    def command(
        labels: Annotated[Path, typer.Argument(help="JSONL, in gzip or not, as `label` writes it")],
        out: Annotated[Path, typer.Option("-o", "--out", help="the calibration file, for cascade.calibration")],
        model: Annotated[str, typer.Option(help="the model that the tiers are of")],
        tier: Annotated[list[str], typer.Option(help="a tier whose answers are to be judged; once for each")],
        threshold: Annotated[float, typer.Option(min=0, help="an answer that loses more is not as good")],
        measure: Annotated[str, typer.Option(help="the loss within a tier's entry; parts by dots")] = "answer.kl",
        after: Annotated[int | None, typer.Option(min=1, help="judge after so many tokens; else the whole")] = None,
        accept: Annotated[float, typer.Option(min=0, max=1, help="for the figures: cascade.accept")] = 0.8,
        seed: Annotated[int, typer.Option(min=0, help="how the labels are divided")] = 0,
        as_json: AsJson = False,
    ) -> None:
        """Fit how often a tier's answer is as good as the reference's, by the margin of its tokens.

        Writes the file that `cascade.calibration` names. All figures are of labels that were not fitted on.

        Example: bitladder calibrate confidence var/labels/labels.jsonl -o cascade.json --model smollm2 --tier int4
        --threshold 0.2 --after 8
        """
        aim = Aim(measure=measure, threshold=threshold, accept=accept, after=after, seed=seed)
        require_other(out, "--out", labels)
        fits = {name: fit_curve(read_answers(labels, name, aim), aim) for name in tier}
        write_output(out, calibration_file(model, {name: curve for name, (curve, _) in fits.items()}), "--out")
        figures = {name: figures for name, (_, figures) in fits.items()}
        typer.echo(json.dumps({"file": str(out), "tiers": figures}) if as_json else _text(figures, aim, out))


def _text(figures: dict[str, dict[str, Any]], aim: Aim, out: Path) -> str:  # Any: JSON
    beginning = f"the first {aim.after} tokens" if aim.after else "all tokens"
    title = f"good: {aim.measure} at most {aim.threshold:g}, by the mean margin of {beginning}; held out"
    columns = ("tier", "labels", "left out", "good", "AUC", "error", "by chance", f"kept at {aim.accept:g}", "good")
    return f"{table(columns, [_row(*item) for item in figures.items()], title=title)}\n{out}"


def _row(tier: str, row: dict[str, Any]) -> tuple[str, ...]:  # Any: JSON
    errors = (f"{row[name]:.3f}" for name in ("calibration_error", "calibration_error_by_chance"))
    auc = "" if row["auc"] is None else f"{row['auc']:.2f}"
    good = ""
    if row["good_of_kept"] is not None:
        low, high = row["good_of_kept_interval"]
        good = f"{row['good_of_kept']:.1%} ({low:.1%} to {high:.1%})"
    counts = (f"{row[name]:,}" for name in ("labels", "left_out"))
    return (tier, *counts, f"{row['good']:.1%}", auc, *errors, f"{row['kept']:.1%}", good)
