"""calibrate tune: a policy of measured losses, with a limit that a promise allows."""

from __future__ import annotations

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.artifacts.folder import require_other
from calibration.commands.configuration import load_configuration
from calibration.commands.control.tier_costs import read_costs
from calibration.commands.options import AsJson, Config, say
from calibration.control.load_costs import costs_at
from calibration.control.predictors.registry import EXPORTABLE
from calibration.control.run_tuning import Options, run_tuning
from calibration.control.tuning import AUTO, Question
from calibration.errors import InputError, UnprovenError
from calibration.simulation.fleet_file import read_fleet
from calibration.simulation.service_curves import read_curves
from calibration.terminal.tabular import table

_MAX_COST = 1e9


class Promise(StrEnum):
    """How sure the promise is: see docs/calibration/control-loop.md."""

    HIGH_PROBABILITY = "high-probability"
    MEAN = "mean"


class Risk(StrEnum):
    """What is promised not to be over alpha."""

    SHARE = "share"
    MEAN = "mean"


_CERTAIN, _SHARE = Promise.HIGH_PROBABILITY, Risk.SHARE


def register(app: typer.Typer) -> None:
    @app.command("tune")
    def command(
        labels: Annotated[Path, typer.Argument(help="JSONL, in gzip or not: features, and losses of each tier")],
        out: Annotated[Path, typer.Option("-o", "--out", help="the policy's file")],
        cost: Annotated[list[str] | None, typer.Option(help="TIER=COST of every tier; the dearest is the top")] = None,
        load: Annotated[float | None, typer.Option(help="instead of --cost: the requests a second to come")] = None,
        fleet: Annotated[Path | None, typer.Option(help="with --load: TOML, each tier's workers and curve")] = None,
        curves: Annotated[Path | None, typer.Option(help="with --load: JSON, speeds by concurrency")] = None,
        tokens: Annotated[str, typer.Option(help="with --load: of a request, IN,OUT")] = "512,256",
        measure: Annotated[str, typer.Option(help="the loss within a tier's entry; parts by dots")] = "answer.kl",
        risk: Annotated[Risk, typer.Option(help="share: of requests over --threshold; mean: of losses")] = _SHARE,
        threshold: Annotated[float | None, typer.Option(help="a request that loses more than this counts")] = None,
        clip: Annotated[float | None, typer.Option(help="with --risk mean: the most that one loss counts")] = None,
        alpha: Annotated[float | None, typer.Option(help="the risk that is allowed; default of a share: 0.05")] = None,
        delta: Annotated[float, typer.Option(help="1 - the confidence")] = 0.05,
        promise: Annotated[Promise, typer.Option(help="with confidence 1 - delta, or on average only")] = _CERTAIN,
        predictor: Annotated[str, typer.Option(help=f"{AUTO}, or one of {', '.join(EXPORTABLE)}")] = AUTO,
        compare: Annotated[bool, typer.Option(help="print how well each predictor does on labels held out")] = True,
        seed: Annotated[int, typer.Option(min=0, help="how the labels are divided")] = 0,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Fit what each tier loses, and write the policy that uses the cheapest tiers as far as a promise allows.

        Exit status 1, and no policy, where the labels cannot promise it; how many more it takes is said.

        Example: bitladder calibrate tune var/labels/labels.jsonl -o policy.json --cost int4=0.3 --cost fp8=1
        --threshold 0.2

        Example: bitladder calibrate tune var/labels/labels.jsonl -o policy.json --load 5 --fleet fleet.toml
        --curves curves.json --risk mean --clip 1 --alpha 0.05
        """
        require_other(out, "--out", labels, fleet, curves)
        costs, loads = _costs_or_loads(cost or [], load, (fleet, curves), tokens, config)
        risks = _risk(risk, threshold, clip, alpha)
        sure: dict[str, Any] = {"promise": promise.value, "delta": _share(delta, "--delta")}
        question = Question(costs=costs, measure=measure, predictor=predictor, seed=seed, **risks, **sure)
        _run(Options(labels=labels, out=out, question=question, compare=compare, loads=loads), as_json=as_json)


def _run(options: Options, *, as_json: bool) -> None:
    figures = run_tuning(options, say)
    typer.echo(json.dumps(figures) if as_json else _text(figures, options.question))
    if figures["policy"] is None:
        raise UnprovenError(_refusal(figures, options.question))


def _risk(risk: Risk, threshold: float | None, clip: float | None, alpha: float | None) -> dict[str, Any]:
    """Return the fields of a question that say what is counted, and how much of it is allowed."""
    if risk == Risk.SHARE:
        if threshold is None or clip is not None:
            raise InputError("--risk share takes --threshold, and no --clip")
        if not 0 <= threshold <= _MAX_COST:
            raise InputError(f"--threshold must be from 0 to {_MAX_COST:g}, got {threshold:g}")
        return {
            "risk": risk.value,
            "threshold": threshold,
            "alpha": _share(0.05 if alpha is None else alpha, "--alpha"),
        }
    if clip is None or alpha is None or threshold is not None:
        raise InputError("--risk mean takes --clip and --alpha, and no --threshold")
    if not 0 < clip <= _MAX_COST:
        raise InputError(f"--clip must be above 0 and at most {_MAX_COST:g}, got {clip:g}")
    if not 0 < alpha < clip:
        raise InputError(f"--alpha must be above 0 and below --clip ({clip:g}), got {alpha:g}")
    return {"risk": risk.value, "threshold": clip, "alpha": alpha}


def _share(value: float, option: str) -> float:
    if not 0 < value < 1:
        raise InputError(f"{option} must be above 0 and below 1, got {value:g}")
    return value


def _costs_or_loads(
    options: list[str], load: float | None, files: tuple[Path | None, Path | None], tokens: str, config: str | None
) -> tuple[dict[str, float], dict[str, Any]]:  # Any: JSON
    """Return each tier's cost, as it is stated or by the load, and what the load makes of each tier."""
    if load is None:
        return read_costs(options), {}
    fleet, curves = files
    if options:
        raise InputError("--cost and --load both say what a tier costs: leave one out")
    if fleet is None or curves is None:
        raise InputError("--load takes --fleet and --curves")
    if not 0 < load <= _MAX_COST:
        raise InputError(f"--load must be above 0 requests a second, got {load:g}")
    lengths = tuple(float(part) if part.strip().isdigit() else 0.0 for part in tokens.split(","))
    if len(lengths) != 2 or min(lengths) < 1:
        raise InputError(f"--tokens must be IN,OUT, as 512,256, got {tokens!r}")
    models = load_configuration(config).models
    if len(models) > 1:
        raise InputError(f"--load takes a configuration of one model, got {', '.join(models)}")
    model = next(iter(models.values()))
    loads = costs_at(load, read_fleet(fleet), read_curves(curves), model, (lengths[0], lengths[1]))
    return {tier: at.cost for tier, at in loads.items()}, {tier: dataclasses.asdict(at) for tier, at in loads.items()}


def _text(figures: dict[str, Any], question: Question) -> str:  # Any: JSON
    counts, chosen = figures["labels"], figures["predictor"]
    over = f"over {question.threshold:g}"
    title = (
        f"{counts['test']} held-out labels (fitted on {counts['fit']}, promised by {counts['promise']}); 95 % intervals"
    )
    lines = [
        table(("policy", "cost", "added loss", "", over, "", "requests"), _policies(figures), title=title),
        *_predictors(figures),
        f"predictor: {chosen['name']} ({chosen['reason']}), {_latency(chosen['latency_us'][chosen['name']])}",
        *(f"not used: {name}: {reason}" for name, reason in chosen["refused"].items()),
        f"Spearman with the loss at {figures['ladder'][0]}, of labels not fitted on: {_interval(figures['spearman'])}",
        *(
            f"cost at {tier}: {at['cost']:.4g} a request at {at['concurrency']:.1f} jobs at once, busy {at['busy']:.0%}"
            for tier, at in figures["loads"].items()
        ),
        *(f"left out: {tier}: {reason}" for tier, reason in figures["left_out"].items()),
        *(f"{tier}: {note}" for tier, note in figures["notes"].items()),
    ]
    if (low := figures["held_out"]["among_low"]) is not None:
        lines.append(
            f"of the {low['requests']} that go below the top, {low['over']:.1%} are {over} "
            f"({low['over_interval'][0]:.1%} to {low['over_interval'][1]:.1%}): seen, not promised"
        )
    if skipped := figures["lines_without_every_tier"]:
        lines.append(f"{skipped:,} lines without a loss of every tier were not used")
    if repeated := counts["repeated"]:
        lines.append(f"{repeated:,} labels of a text that has one already were not used")
    if figures["policy"] is not None:
        sure = (
            f"with confidence {1 - question.delta:g}" if question.promise == Promise.HIGH_PROBABILITY else "on average"
        )
        lines.append(f"promised, {sure}: over all traffic like these labels, {question.words}")
        lines += [f"the next limit: {_next(figures['next'], question)}"] if figures["next"] is not None else []
        lines.append(figures["policy"])
    return "\n".join(lines)


def _policies(figures: dict[str, Any]) -> list[tuple[str, ...]]:  # Any: JSON
    rows: list[tuple[str, ...]] = []
    for name, row in figures["held_out"]["policies"].items():
        low, high = row["loss_interval"]
        share = "" if row["over_interval"] is None else "{:.1%} to {:.1%}".format(*row["over_interval"])
        shares = ", ".join(f"{tier} {part:.0%}" for tier, part in row["shares"].items() if part)
        rows.append((name, f"{row['cost']:.4g}", f"{row['loss']:.4g}", f"{low:.4g} to {high:.4g}", f"{row['over']:.1%}",
                     share, shares))  # fmt: skip
    return rows


def _predictors(figures: dict[str, Any]) -> list[str]:  # Any: JSON
    if not (compared := figures.get("predictors")):
        return []
    latency = figures["predictor"]["latency_us"]
    rows: list[tuple[str, ...]] = []
    for name, row in compared.items():
        cells = [
            _interval(row[split]) if split in row else row.get("left_out", "") for split in ("random", "by_source")
        ]
        rows.append((name, *cells, _latency(latency[name]) if name in latency else ""))
    return [table(("predictor", "random", "by source", "2 KB"), rows, title="Spearman, cross-validated on all labels")]


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['spearman']:+.2f} ({figure['low']:+.2f} to {figure['high']:+.2f})"


def _latency(times: dict[str, float]) -> str:
    return f"{times['p50']:.0f} us, p99 {times['p99']:.0f}"


def _refusal(figures: dict[str, Any], question: Question) -> str:  # Any: JSON
    confidence = f", with confidence {1 - question.delta:g}," if question.promise == Promise.HIGH_PROBABILITY else ""
    labels, top = figures["labels"]["promise"], figures["ladder"][-1]
    return (
        f"no policy is written: {labels:,} labels cannot promise{confidence} that {question.words}, at any limit that "
        f"uses a tier below {top}; at the lowest such limit {_next(figures['next'], question)}"
    )


def _next(step: dict[str, Any], question: Question) -> str:  # Any: JSON
    if question.risk == Risk.MEAN:
        begin = f"these labels have a mean of {step['risk']:.4g}"
    else:
        begin = f"{step['risk']:.2%} of these labels are over {question.threshold:g}"
    if step["more_labels"] is None:
        return f"{begin}: no number of labels proves {question.alpha:.3g} of that"
    return f"{begin}: about {step['more_labels']:,} more labels would prove it, were that the true {question.risk}"
