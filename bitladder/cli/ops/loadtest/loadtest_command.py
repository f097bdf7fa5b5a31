"""The command: its options, what it refuses to do by accident, and its exit status."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
import uvloop

from bitladder.cli.common_options import DEFAULT_URL, ApiKey, AsJson, Url
from bitladder.cli.job_commands import intake_client
from bitladder.cli.ops.loadtest.load_plan import Arrivals, Mode, Traffic, plan
from bitladder.cli.ops.loadtest.load_report import make_report
from bitladder.cli.ops.loadtest.mixes import read_burst, read_mix, read_span
from bitladder.cli.ops.loadtest.prompts import KINDS
from bitladder.cli.ops.loadtest.sending import LoadRun
from bitladder.cli.ops.loadtest.shown import show_report, watched, write_pairs
from bitladder.cli.ops.loadtest.targets import EXPECTED, read_slo, read_targets
from bitladder.cli.output import ExitCode
from bitladder.errors import ConfigError
from bitladder.settings.hidden import hidden
from bitladder.workload.traces import TraceRequest, read_trace

# Name -> its type, help and limits, and its default; `loadtest` gets them by name.
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "url": (Url, DEFAULT_URL),
    "model": (Annotated[str | None, typer.Option(help="The model (default: the intake's first).")], None),
    "kinds": (
        Annotated[str, typer.Option(help=f"Kinds of prompts by weight: {', '.join(KINDS)}.")],
        "prose=2,chat=2,code=2,json=1,numbers=1,random=1",
    ),
    "modes": (Annotated[str, typer.Option(help=f"What is called, by weight: {', '.join(Mode)}.")], "chat-stream"),
    "rate": (
        Annotated[float | None, typer.Option(min=0.001, help="Requests a second, whoever still waits (default: 5).")],
        None,
    ),
    "arrivals": (Annotated[Arrivals, typer.Option(help="How they come at that rate.")], Arrivals.POISSON),
    "concurrency": (
        Annotated[int | None, typer.Option(min=1, max=20_000, help="Instead: so many clients that each wait.")],
        None,
    ),
    "burst": (Annotated[str | None, typer.Option(help="With --rate: on and off in turn, as 10s/20s.")], None),
    "trace": (
        Annotated[
            Path | None, typer.Option(help="Instead: Azure's CSV, Mooncake's or recorded JSON lines, gzip or not.")
        ],
        None,
    ),
    "sort": (Annotated[bool, typer.Option("--sort", help="With --trace: put its times in order.")], False),
    "speed": (Annotated[float, typer.Option(min=0.001, help="With --trace: so many times as fast.")], 1.0),
    "priority": (Annotated[str | None, typer.Option(help="By weight, as none=8,9=1,1=1: lanes and floors.")], None),
    "min_tier": (Annotated[str | None, typer.Option(help="By weight, as none=3,int8=1.")], None),
    "max_tier": (Annotated[str | None, typer.Option(help="By weight.")], None),
    "deadline_ms": (Annotated[str | None, typer.Option(help="By weight.")], None),
    "max_latency_ms": (Annotated[str | None, typer.Option(help="By weight.")], None),
    "input_tokens": (Annotated[int, typer.Option(min=1, help="Of a prompt, about, on average.")], 100),
    "max_input_tokens": (Annotated[int, typer.Option(min=1, help="Longer prompts, as a trace's, are cut.")], 1500),
    "output_tokens": (Annotated[int, typer.Option(min=1, help="max_tokens of an answer; a trace has its own.")], 32),
    "duration": (Annotated[str, typer.Option(help="How long requests are sent.")], "30s"),
    "warm_up": (Annotated[str, typer.Option(help="Its first part, which is not counted.")], "0s"),
    "max_requests": (Annotated[int, typer.Option(min=1, max=10_000_000, help="Requests in all.")], 1000),
    "max_in_flight": (
        Annotated[int, typer.Option(min=1, max=20_000, help="Open at once; later ones are sent late, and count so.")],
        256,
    ),
    "timeout": (Annotated[str, typer.Option(help="Longest wait for a request, and for the last ones.")], "60s"),
    "seed": (Annotated[int, typer.Option(help="The same options and seed send the same.")], 0),
    "target": (Annotated[str, typer.Option(help=f"Exit status 1 where one is missed: {EXPECTED}.")], ""),
    "slo": (
        Annotated[str | None, typer.Option(help="What a good answer keeps, for goodput: ttft=1s,e2e=10s,itl=50ms.")],
        None,
    ),
    "pairs": (
        Annotated[Path | None, typer.Option(help="Write entropy and latency of each answer there: .csv or .json.")],
        None,
    ),
    "yes": (Annotated[bool, typer.Option("--yes", "-y", help="Send to other machines than this one, too.")], False),
    "as_json": (AsJson, False),
    "api_key": (ApiKey, None),
}
_HEADERS = {
    "priority": "X-Priority",
    "min_tier": "X-Min-Tier",
    "max_tier": "X-Max-Tier",
    "deadline_ms": "X-Deadline-Ms",
    "max_latency_ms": "X-Max-Latency-Ms",
}
_USUAL_RATE = 5.0


def loadtest(**options: Any) -> None:  # noqa: ANN401  (_OPTIONS has their types)
    """Send traffic of chosen kinds, rates and bursts to an intake, and report how well it was served.

    Exit status: 0: every target is met; 1: one is missed, or nothing was answered; 130: Ctrl-C, after the report.

    Example: bitladder loadtest --rate 5 --duration 30s --target p95=20s,errors=1%

    Example: bitladder loadtest --trace azure.csv.gz --speed 10 --pairs pairs.csv --json
    """
    _refuse_strangers(options["url"], is_meant=options["yes"])
    targets, slo = read_targets(options["target"]), read_slo(options["slo"]) if options["slo"] else {}
    if "goodput" in {target.name for target in targets} and not slo:
        raise ConfigError("--target goodput needs --slo, which says what is good")
    traffic, warm_up_s = _traffic(options), read_span("--warm-up", options["warm_up"])
    _refuse_spoiled(options)
    if warm_up_s >= traffic.duration_s:
        raise ConfigError(f"--warm-up must be shorter than --duration, got {options['warm_up']!r}")
    pairs: Path | None = options["pairs"]
    model = options["model"] or _first_model(options["url"], options["api_key"])
    run = uvloop.run(_send(options, traffic, model))
    report = make_report(run.samples, warm_up_s, slo, is_interrupted=run.is_stopped)
    if run.sent == traffic.max_requests and traffic.rate and not run.is_stopped:
        typer.echo(
            f"all --max-requests {run.sent} were sent after {max(sample.due_s for sample in run.samples):.1f} s",
            err=True,
        )
    report["targets"] = [target.judge(report) for target in targets]
    about = {"url": options["url"], "model": model, "seed": traffic.seed, "interrupted": run.is_stopped}
    if options["as_json"]:
        typer.echo(json.dumps({"object": "loadtest.report", **about, **report}, indent=2))
    else:
        show_report(report)
    if pairs:
        write_pairs(pairs, [sample for sample in run.samples if sample.due_s >= warm_up_s])
    if run.is_stopped:
        raise typer.Exit(ExitCode.INTERRUPTED)
    is_missed = not report["requests"]["answered"] or not all(target["met"] for target in report["targets"])
    raise typer.Exit(ExitCode.FAILED if is_missed else ExitCode.DONE)


_PARAMETERS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, (kind, default) in _OPTIONS.items()
]
loadtest.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]
loadtest.__annotations__ = {name: kind for name, (kind, _) in _OPTIONS.items()}


async def _send(options: dict[str, Any], traffic: Traffic, model: str) -> LoadRun:
    timeout_s = read_span("--timeout", options["timeout"])
    run = LoadRun(options["url"], options["api_key"], model, timeout_s=timeout_s)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, run.stop)
    clients = options["concurrency"] or options["max_in_flight"]
    async with watched(run, traffic.duration_s):
        await run.run(plan(traffic), clients=clients, duration_s=traffic.duration_s, drain_s=timeout_s)
    return run


def _traffic(options: dict[str, Any]) -> Traffic:
    ways = [name for name in ("rate", "concurrency", "trace") if options[name] is not None]
    if len(ways) > 1:
        raise ConfigError(f"requests come in one way: choose between --{' and --'.join(ways)}")
    if options["burst"] and ways not in ([], ["rate"]):
        raise ConfigError(f"--burst goes with --rate, not with --{ways[0]}")
    limit: int = options["max_requests"]
    headers = {header: options[name] for name, header in _HEADERS.items() if options[name] is not None}
    return Traffic(
        kinds=read_mix("--kinds", options["kinds"], KINDS),
        modes=read_mix("--modes", options["modes"], tuple(Mode)),
        headers={header: read_mix(header, text) for header, text in headers.items()},
        rate=options["rate"] if ways else _USUAL_RATE,
        arrivals=options["arrivals"],
        burst=read_burst(options["burst"]) if options["burst"] else None,
        trace=_trace(options, limit),
        input_tokens=options["input_tokens"],
        max_input_tokens=options["max_input_tokens"],
        output_tokens=options["output_tokens"],
        duration_s=read_span("--duration", options["duration"]),
        max_requests=limit,
        seed=options["seed"],
    )


def _trace(options: dict[str, Any], limit: int) -> Sequence[TraceRequest]:
    file: Path | None = options["trace"]
    return list(read_trace(file, speed=options["speed"], limit=limit, sort=options["sort"])) if file else ()


def _refuse_spoiled(options: dict[str, Any]) -> None:
    """Refuse what would only be seen behind the traffic.

    Raises:
        ConfigError: a span is 0, or the pairs cannot be written.

    """
    for name in ("duration", "timeout"):
        if not read_span(f"--{name}", options[name]):
            raise ConfigError(f"--{name} must be longer than 0, got {options[name]!r}")
    pairs: Path | None = options["pairs"]
    if pairs and not (folder := pairs.absolute().parent).is_dir():
        raise ConfigError(f"--pairs: there is no folder {str(folder)!r}")
    if pairs and (pairs.is_dir() or not os.access(pairs if pairs.exists() else folder, os.W_OK)):
        raise ConfigError(f"--pairs must be a file that can be written, got {str(pairs)!r}")


def _first_model(url: str, api_key: str | None) -> str:
    with intake_client(url, api_key) as client:
        models = client.call("GET", "/v1/models")["data"]
    return str(models[0]["root"] if "root" in models[0] else models[0]["id"])


def _refuse_strangers(url: str, *, is_meant: bool) -> None:
    """Refuse other machines, unless that is meant: this much traffic is an attack where nobody expects it.

    Raises:
        ConfigError: it is another machine, and nobody said that it is meant.

    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # not even a URL
        host = ""
    if not host:
        raise ConfigError(f"--url must be as {DEFAULT_URL}, got {str(hidden(url))[:80]!r}")
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here and not is_meant:
        raise ConfigError(f"--url is {host[:80]!r}, another machine: pass --yes if its owner knows of the test")
