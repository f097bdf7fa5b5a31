"""calibrate simulate: requests on a fleet, on a virtual clock."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.settings.sections import Settings
from calibration.commands.configuration import load_configuration
from calibration.commands.control.load_options import LENGTHS, arrivals_of, numbers_of, targets_of
from calibration.commands.options import AsJson, Config, say
from calibration.errors import InputError
from calibration.simulation.arrivals import MAX_REQUESTS, Arrivals
from calibration.simulation.fleet_file import read_fleet
from calibration.simulation.run_simulation import Scenario, simulate
from calibration.simulation.service_curves import read_curves
from calibration.terminal.progress import now_and_then
from calibration.terminal.tabular import table


def register(app: typer.Typer) -> None:
    @app.command("simulate")
    def command(
        fleet: Annotated[Path, typer.Option(help="TOML: each tier's workers, curve and memory, and the model's shape")],
        curves: Annotated[Path, typer.Option(help="JSON: speeds by concurrency")],
        arrivals: Annotated[
            str, typer.Option(help="a trace (Azure's CSV, Mooncake's or recorded JSON lines; .gz), or a generator")
        ] = "poisson:rate=10",
        count: Annotated[int | None, typer.Option(min=1, max=MAX_REQUESTS, help="default: 10000, or the trace")] = None,
        lengths: Annotated[str, typer.Option(help="constant, exponential or zipf, with means")] = LENGTHS,
        speed: Annotated[float, typer.Option(min=1e-6, max=1e6, help="a trace comes so many times as fast")] = 1.0,
        sort: Annotated[bool, typer.Option("--sort", help="put a trace's times in order")] = False,
        shares: Annotated[str, typer.Option(help="floors by share, such as int4=0.7,int8=0.2,fp8=0.1")] = "",
        policy: Annotated[str | None, typer.Option(help="as policy.name has it (default: the model's)")] = None,
        model: Annotated[str | None, typer.Option(help="whose ladder counts, where there are several")] = None,
        slo: Annotated[str, typer.Option(help="in seconds, for the goodput: ttft=1,total=20,per_token=0.05")] = "",
        seed: Annotated[int, typer.Option(min=0, help="the same seed, the same figures")] = 0,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Simulate requests on a fleet: latency, goodput, tier shares, overflow and cost, before it is rented.

        Claims, overflow and lanes go by the code and the settings that serve. docs/calibration/simulate.md has the
        forms of the files, and what is left out.

        Example: bitladder calibrate simulate --fleet fleet.toml --curves curves.json --shares int4=0.7,int8=0.2,fp8=0.1

        Example: bitladder calibrate simulate --fleet fleet.toml --curves curves.json --arrivals azure.csv.gz --json
        """
        settings, name = _with_policy(load_configuration(config), model, policy)
        scenario = Scenario(
            settings=settings,
            model=name,
            fleet=read_fleet(fleet),
            curves=read_curves(curves),
            shares=numbers_of("--shares", shares),
            targets=targets_of(slo),
            seed=seed,
        )
        requests = arrivals_of(arrivals, count, speed, lengths, seed, sort=sort)
        _run(scenario, requests, as_json=as_json)


def _run(scenario: Scenario, arrivals: Arrivals, *, as_json: bool) -> None:
    started_s = time.monotonic()
    advance = now_and_then(say, "requests")
    figures = simulate(scenario, arrivals, lambda done: advance(done, len(arrivals)))
    if scenario.fleet.model is None:
        say("the fleet has no [model]: whether it fits into memory was not checked")
    say(f"{len(arrivals):,} requests simulated in {time.monotonic() - started_s:.1f} s")
    typer.echo(json.dumps(figures) if as_json else _as_tables(figures))


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
    except ValueError as error:
        raise InputError(f"--policy {policy!r}: {error}") from error


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
