"""calibrate simulate: requests on a fleet, on a virtual clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from bitladder.settings.sections import Settings
from calibration.artifacts.folder import require_other
from calibration.artifacts.html_report import write_page
from calibration.commands.configuration import load_configuration
from calibration.commands.control.load_options import LENGTHS, arrivals_of, numbers_of, shares_of, targets_of
from calibration.commands.options import AsJson, Config, say
from calibration.errors import InputError
from calibration.simulation.arrivals import MAX_REQUESTS, Arrivals, with_defaults
from calibration.simulation.compared_runs import compared, simulation_page
from calibration.simulation.fleet_file import read_fleet
from calibration.simulation.run_series import Series, series_of
from calibration.simulation.run_simulation import Scenario, simulate
from calibration.simulation.service_curves import read_curves
from calibration.simulation.simulated_work import Work
from calibration.terminal.progress import now_and_then
from calibration.terminal.tabular import table

Fleets = Annotated[list[Path], typer.Option(help="TOML: each tier's workers, curve and memory; several are compared")]
Curves = Annotated[Path, typer.Option(help="JSON: speeds by concurrency")]
Requests = Annotated[
    str, typer.Option(help="a trace (Azure's CSV, Mooncake's or recorded JSON lines; .gz), or a generator")
]
Count = Annotated[int | None, typer.Option(min=1, max=MAX_REQUESTS, help="default: 10000, or the trace")]
Means = Annotated[str, typer.Option(help="constant, exponential or zipf, with means")]
Speed = Annotated[float, typer.Option(min=1e-6, max=1e6, help="a trace comes so many times as fast")]
Sort = Annotated[bool, typer.Option("--sort", help="put a trace's times in order")]
Shares = Annotated[str, typer.Option(help="floors by share, such as int4=0.7,int8=0.2,fp8=0.1")]
Deadline = Annotated[float | None, typer.Option(min=0.001, max=1e6, help="seconds, of requests that have none")]
Tenants = Annotated[str, typer.Option(help="of requests that have none, by share, such as a=0.9,b=0.1")]
Policies = Annotated[list[str] | None, typer.Option(help="as policy.name has it (default: the model's); several too")]
Model = Annotated[str | None, typer.Option(help="whose ladder counts, where there are several")]
Slo = Annotated[str, typer.Option(help="in seconds, for the goodput: ttft=1,total=20,per_token=0.05")]
Seed = Annotated[int, typer.Option(min=0, help="the same seed, the same figures")]
Output = Annotated[Path | None, typer.Option("--out", "-o", help="a page (HTML), with its plots beside it")]


def register(app: typer.Typer) -> None:
    @app.command("simulate")
    def command(
        fleet: Fleets,
        curves: Curves,
        arrivals: Requests = "poisson:rate=10",
        count: Count = None,
        lengths: Means = LENGTHS,
        speed: Speed = 1.0,
        sort: Sort = False,
        shares: Shares = "",
        deadline: Deadline = None,
        tenants: Tenants = "",
        policy: Policies = None,
        model: Model = None,
        slo: Slo = "",
        seed: Seed = 0,
        output: Output = None,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Simulate requests on a fleet: latency, goodput, tier shares, overflow and cost, before it is rented.

        Decisions go by the code and the settings that serve. Left out: rates and open requests of keys, cascades,
        X-Max-Cost, prefix reuse, failures, retries, autoscaling, pauses. docs/calibration/simulate.md has the files.

        Example: bitladder calibrate simulate --fleet fleet.toml --curves curves.json --shares int4=0.7,int8=0.2,fp8=0.1

        Example: bitladder calibrate simulate --fleet a.toml --fleet b.toml --curves curves.json --arrivals azure.csv.gz
        --shares int4=0.7,int8=0.2,fp8=0.1
        """
        require_other(output, "--out", *fleet, curves, Path(arrivals))
        loaded, targets = load_configuration(config), targets_of(slo)
        known, split = read_curves(curves), shares_of(shares)
        scenarios = {}
        for file, chosen in product(fleet, [*policy] if policy else [None]):
            settings, name = _with_policy(loaded, model, chosen)
            scenario = Scenario(
                settings=settings, model=name, fleet=read_fleet(file), curves=known, shares=split, targets=targets
            )
            scenarios[_run_name(file, chosen, fleet)] = replace(scenario, seed=seed)
        requests = arrivals_of(arrivals, count, speed, lengths, seed, sort=sort)
        requests = with_defaults(requests, deadline, numbers_of("--tenants", tenants), seed)
        _show(run(scenarios, requests, output), as_json=as_json)


def run(scenarios: Mapping[str, Scenario], arrivals: Arrivals, output: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the figures of each scenario under the same requests; write a page of them where that is asked for."""
    runs, lines = {}, {}
    for name, scenario in scenarios.items():
        started_s, advance = time.monotonic(), now_and_then(say, "requests")

        def keep(work: Work, name: str = name, scenario: Scenario = scenario) -> None:
            if output is not None:
                lines[name] = series_of(work, scenario.settings.models[scenario.model].ladder)

        def tell(done: int, advance: Callable[[int, int], None] = advance) -> None:
            advance(done, len(arrivals))

        runs[name] = simulate(scenario, arrivals, tell, on_end=keep)
        if scenario.fleet.model is None:
            say("the fleet has no [model]: whether it fits into memory was not checked")
        say(f"{name}: {len(arrivals):,} requests simulated in {time.monotonic() - started_s:.1f} s")
    if output is not None:
        _write(output, runs, lines)
    return runs


def _run_name(file: Path, policy: str | None, files: Collection[Path]) -> str:
    """Return how a run is named: by its fleet's file, where others of that name are by its path, and its policy."""
    name = file.stem if [other.stem for other in files].count(file.stem) == 1 else str(file)
    return f"{name}, {policy}" if policy else name


def _write(output: Path, runs: Mapping[str, Mapping[str, Any]], lines: Mapping[str, Series]) -> None:
    from calibration.simulation.simulation_plots import latency_png, run_png

    latency, pngs = latency_png(lines), {name: run_png(line, runs[name]["tiers"]) for name, line in lines.items()}
    numbered = {str(place): png for place, png in enumerate(pngs.values(), 1)}
    write_page(output, simulation_page(runs, latency, pngs), {"latency": latency, **numbered})
    say(f"-> {output}")


def _show(runs: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> None:
    if len(runs) == 1:
        (figures,) = runs.values()
        typer.echo(json.dumps(figures) if as_json else _as_tables(figures))
    elif as_json:
        typer.echo(json.dumps({"runs": [{"run": name, **figures} for name, figures in runs.items()]}))
    else:
        typer.echo(table(*compared(runs)))


def _with_policy(settings: Settings, model: str | None, policy: str | None) -> tuple[Settings, str]:
    if model is None and len(settings.models) > 1:
        raise InputError(f"--model must be one of {', '.join(settings.models)}")
    name = model or next(iter(settings.models))
    if name not in settings.models:
        raise InputError(f"--model must be one of {', '.join(settings.models)}, got {name!r}")
    if policy is None:
        return settings, name
    values = settings.model_dump()
    values["models"][name]["policy"] = policy
    try:
        return Settings.model_validate(values), name
    except ValidationError as error:
        raise InputError(f"--policy: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def _as_tables(figures: Mapping[str, Any]) -> str:
    times = [(name, *figures[name].values()) for name in ("wait_s", "ttft_s", "total_s", "time_per_token_s")]
    columns = ("tier", "workers", "floor_share", "share", "tokens", "busy", "rent", "attributed")
    tiers = [[row[column] for column in columns] for row in figures["tiers"]]
    cost, overflow, goodput = figures["cost"], figures["overflow"], figures["goodput"]
    rest = [
        ("requests", figures["requests"]),
        ("requests a second", figures["requests_per_s"]),
        ("goodput, requests a second", goodput["requests_per_s"]),
        ("share within the targets", goodput["share"]),
        *((f"requests, {end}", count) for end, count in figures["ended"].items() if count or end == "served"),
        *([("requests, refused by a budget", figures["over_budget"])] if "over_budget" in figures else []),
        ("requests, served below their floor", figures["below_floor"]),
        ("overflow, share", overflow["share"]),
        *((f"overflow, {way}", count) for way, count in overflow["ways"].items()),
        *((name.replace("_", " "), value) for name, value in cost.items()),
    ]
    return "\n\n".join(
        [
            table(("time", "mean", "p50", "p95", "p99"), times),
            table(columns, tiers),
            table(("what", "value"), rest),
        ]
    )
