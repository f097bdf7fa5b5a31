"""calibrate plan: the cheapest fleet for requests, an SLO and a quality promise."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.artifacts.folder import require_other, write_output
from calibration.artifacts.html_report import write_page
from calibration.commands.control.load_options import LENGTHS, arrivals_of, shares_of, targets_of
from calibration.commands.control.policy_shares import policy_shares
from calibration.commands.options import AsJson, say
from calibration.errors import InputError
from calibration.simulation.arrivals import MAX_REQUESTS, Arrivals
from calibration.simulation.outcome import NO_TARGETS, Targets
from calibration.simulation.planning.fleet_export import FILES, fleet_files
from calibration.simulation.planning.frontiers import Frontier, follow, read_frontier
from calibration.simulation.planning.make_plan import Aims, Market, Question, alternatives, make_plan, market_of, saving
from calibration.simulation.planning.offers_file import Offers, options_of, read_offers
from calibration.simulation.planning.plan_report import (
    FRONTIER_COLUMNS,
    OTHER_COLUMNS,
    WORKER_COLUMNS,
    figures_of_plan,
    frontier_rows,
    other_rows,
    plan_page,
    sentences,
    verification_figures,
    worker_rows,
)
from calibration.simulation.planning.size_buckets import RATES, Demand, demand_of
from calibration.simulation.planning.verify_plan import verify_plan
from calibration.simulation.service_curves import read_curves
from calibration.terminal.progress import now_and_then
from calibration.terminal.tabular import table

Count = Annotated[int | None, typer.Option(min=2, max=MAX_REQUESTS, help="default: 10000, or the trace")]
Speed = Annotated[float, typer.Option(min=1e-6, max=1e6, help="a trace comes so many times as fast")]
Window = Annotated[float, typer.Option(min=1e-3, max=1e6, help="seconds of a window")]
Rate = Annotated[str, typer.Option(help="which rate is planned for: mean, p95 or peak of windows")]
Attainment = Annotated[float, typer.Option(min=0.5, max=1, help="share of the requests to be within the SLO")]
Specs = Annotated[list[str] | None, typer.Option(help="also: load=1,2,5,10 or price:h100=2..8; may be repeated")]
Output = Annotated[Path | None, typer.Option("--out", "-o", help="a page, with plots beside it")]
FleetOut = Annotated[Path | None, typer.Option(help="a folder: the fleet as files for simulate")]
Seed = Annotated[int, typer.Option(min=0, help="the same seed, the same figures")]


def register(app: typer.Typer) -> None:
    @app.command("plan")
    def command(
        offers: Annotated[Path, typer.Argument(help="TOML: devices with price, memory, and a curve for each tier")],
        curves: Annotated[Path, typer.Option(help="JSON: speeds by concurrency, as simulate takes them")],
        slo: Annotated[str, typer.Option(help="in seconds: ttft=1,per_token=0.05,total=20, or some of these")],
        arrivals: Annotated[str, typer.Option(help="a trace's file, or a generator: see simulate")] = "poisson:rate=10",
        count: Count = None,
        lengths: Annotated[str, typer.Option(help="constant, exponential or zipf, with means")] = LENGTHS,
        speed: Speed = 1.0,
        sort: Annotated[bool, typer.Option("--sort", help="put a trace's times in order")] = False,
        shares: Annotated[str, typer.Option(help="the promise: floors by share, such as int4=0.7,fp8=0.3")] = "",
        policy: Annotated[Path | None, typer.Option(help="or a policy's file; with --labels")] = None,
        labels: Annotated[Path | None, typer.Option(help="JSONL: prompts on which the policy decides")] = None,
        rate: Rate = "p95",
        window: Window = 60.0,
        attainment: Attainment = 0.99,
        blind: Annotated[bool, typer.Option("--blind", help="requests are not divided by size")] = False,
        ideal: Annotated[bool, typer.Option("--ideal", help="curves as they are, without the file's scales")] = False,
        verify: Annotated[bool, typer.Option(help="simulate the plan on the same requests")] = True,
        frontier: Specs = None,
        output: Output = None,
        fleet_out: FleetOut = None,
        seed: Seed = 0,
        as_json: AsJson = False,
    ) -> None:
        """Find the cheapest fleet for requests, an SLO and a quality promise; exit status 1 when it misses the SLO.

        An integer program over what a worker of each device and tier can take, then a simulation of what it chose.
        docs/calibration/plan.md has the file's form, how to read the figures, and what is left out.

        Example: bitladder calibrate plan offers.toml --curves curves.json --slo ttft=1,per_token=0.1
        --arrivals azure.csv.gz --shares int4=0.7,fp8=0.3 --frontier load=1..32 --frontier price:h100=2..8 -o plan.html
        """
        _check_outputs(output, fleet_out, offers, curves, Path(arrivals), policy, labels)
        read = read_offers(offers)
        specs = [read_frontier(spec, list(read.devices)) for spec in frontier or ()]
        options = options_of(read, read_curves(curves), as_measured=ideal)
        promise = _shares(shares, policy, labels, read)
        aims = Aims(targets=_targets(slo), shares=promise, attainment=attainment, is_blind=blind)
        requests = arrivals_of(arrivals, count, speed, lengths, seed, sort=sort)
        question = Question(offers=read, options=options, demand=_demand(requests, rate, window), aims=aims)
        _show(run(question, requests if verify else None, specs, seed, fleet_out), output, as_json=as_json)


def _check_outputs(output: Path | None, fleet_out: Path | None, *inputs: Path | None) -> None:
    require_other(output, "--out", *inputs)
    for name in FILES:
        require_other(fleet_out and fleet_out / name, "--fleet-out", *inputs)


def _targets(slo: str) -> Targets:
    targets = targets_of(slo)
    if targets == NO_TARGETS:
        raise InputError("--slo must name at least one of ttft, per_token, total")
    return targets


def _demand(requests: Arrivals, rate: str, window_s: float) -> Demand:
    if rate not in RATES:
        raise InputError(f"--rate must be one of {', '.join(RATES)}, got {rate!r}")
    return demand_of(requests, rate, window_s)


def _show(figures: dict[str, Any], output: Path | None, *, as_json: bool) -> None:  # Any: JSON
    if output is not None:
        _write(output, figures)
    typer.echo(json.dumps(figures) if as_json else _as_tables(figures))
    if "verification" in figures and not figures["verification"]["is_met"]:
        raise typer.Exit(1)


def run(
    question: Question,
    requests: Arrivals | None,
    frontiers: list[Frontier],
    seed: int,
    fleet_out: Path | None = None,
) -> dict[str, Any]:  # Any: JSON
    """Plan, simulate the plan where there are requests, write it where that is asked for, follow the frontiers."""
    started_s = time.monotonic()
    if not question.aims.shares:
        say("no --shares and no --policy: every request may be served at the lowest tier")
    market = market_of(question)
    fleet = make_plan(market)
    others = alternatives(market)
    figures = figures_of_plan(market, fleet, others, saving(market, fleet, others), seed)
    say(f"planned in {time.monotonic() - started_s:.1f} s: {len(market.kinds)} kinds of workers")
    if requests is not None:
        count, advance = len(requests), now_and_then(say, "requests")
        verified = verify_plan(market, fleet, requests, seed, say, lambda done: advance(done, count))
        figures["verification"] = verification_figures(market, verified)
        fleet = verified.fleet
    if fleet_out is not None:
        _write_fleet(fleet_out, fleet_files(market, fleet))
    figures["frontiers"] = [_followed(market, frontier) for frontier in frontiers]
    return figures


def _followed(market: Market, frontier: Frontier) -> dict[str, Any]:  # Any: JSON
    advance = now_and_then(say, f"frontier {frontier.spec}")
    return follow(market, frontier, advance)


def _shares(shares: str, policy: Path | None, labels: Path | None, offers: Offers) -> dict[str, float]:
    if policy is None and labels is None:
        return shares_of(shares, offers.ladder)
    if policy is None or labels is None or shares:
        raise InputError("the quality promise is either --shares, or --policy and --labels together")
    return policy_shares(policy, labels, offers.ladder)


def _write(output: Path, figures: dict[str, Any]) -> None:  # Any: JSON
    from calibration.simulation.planning.plan_plots import frontier_png

    pngs = [frontier_png(frontier) for frontier in figures["frontiers"]]
    plots = {frontier["varied"]: png for frontier, png in zip(figures["frontiers"], pngs, strict=True)}
    write_page(output, plan_page(figures, pngs), plots)
    say(f"page: {output}")


def _write_fleet(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        write_output(folder / name, text.encode(), "--fleet-out")
    say(f"fleet: {', '.join(str(folder / name) for name in files)}")


def _as_tables(figures: dict[str, Any]) -> str:  # Any: JSON
    headline, *others = sentences(figures)
    blocks = [
        headline,
        table(WORKER_COLUMNS, worker_rows(figures["plan"])),
        table(OTHER_COLUMNS, other_rows(figures)),
        *(table(FRONTIER_COLUMNS, frontier_rows(item), title=item["spec"]) for item in figures["frontiers"]),
        "\n".join(others),
    ]
    return "\n\n".join(blocks)
