"""bitladder batch run: a file of requests in, a file of answers out, straight through Redis."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from bitladder.cli.batch.run_file import FileRun, run_file
from bitladder.cli.common_options import AsJson, BodyJson, Config, Set, body_fields
from bitladder.client.answers import envelope_headers
from bitladder.entries import shared_headers
from bitladder.errors import ConfigError
from bitladder.producer.batch import MAX_IN_FLIGHT
from bitladder.queue_name import Lane
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings

_DURATION = re.compile(r"(\d{1,6})(s|m|h|d)")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_Source = Annotated[str, typer.Argument(metavar="INPUT", help="A file of lines, plain or gzip; '-': standard input.")]
_Output = Annotated[str, typer.Option("--output", "-o", help="Where the answers go; '-': standard output.")]
_Model = Annotated[
    str | None, typer.Option(help="The model of lines that name none (default: the only one that is configured).")
]
_Tier = Annotated[str | None, typer.Option(help="The only tier: --min-tier and --max-tier at once.")]
_MinTier = Annotated[str | None, typer.Option(help="Lowest tier.")]
_MaxTier = Annotated[str | None, typer.Option(help="Highest tier.")]
_Lane = Annotated[Lane, typer.Option(help="The lane.")]
_Deadline = Annotated[
    str | None, typer.Option(help="When a job is dropped, from its submission on: 90s, 30m, 12h, at most 1d.")
]
_InFlight = Annotated[int, typer.Option(min=1, max=10_000, help="Jobs in the queue at a time.")]
_AsCompleted = Annotated[bool, typer.Option("--as-completed", help="Answers as they come, not in the input's order.")]
_RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run lines again that have failed before.")]
_Restart = Annotated[bool, typer.Option("--restart", help="Begin anew: what there is of the output is dropped.")]
_Cancel = Annotated[bool, typer.Option("--cancel-on-interrupt", help="At Ctrl-C, cancel the jobs in flight.")]


def run(
    source: _Source,
    output: _Output,
    model: _Model = None,
    fields: Set = None,
    body: BodyJson = None,
    tier: _Tier = None,
    min_tier: _MinTier = None,
    max_tier: _MaxTier = None,
    lane: _Lane = Lane.BATCH,
    deadline: _Deadline = None,
    max_in_flight: _InFlight = MAX_IN_FLIGHT,
    as_completed: _AsCompleted = False,
    retry_failed: _RetryFailed = False,
    restart: _Restart = False,
    cancel_on_interrupt: _Cancel = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Run a file of requests on the queue, a line of output for each: OpenAI's batch lines, prompts or chats.

    Broken off by Ctrl-C or kill -9, the same command goes on where it was and runs nothing twice. Exit status: 0: every
    line has an answer; 1: some have failed; 130: Ctrl-C.

    Example: bitladder batch run in.jsonl -o out.jsonl

    Example: bitladder batch run prompts.txt -o out.jsonl --set max_tokens=64 --max-tier int8 --deadline 2h
    """
    settings = load_settings(config).settings
    envelope = {"min_tier": tier or min_tier, "max_tier": tier or max_tier, "deadline_ms": _milliseconds(deadline)}
    asked = FileRun(
        source=source,
        output=output,
        fields=_default_model(model, settings) | body_fields(body, fields),
        headers=shared_headers(envelope_headers(envelope)),
        lane=lane,
        max_in_flight=min(max_in_flight, max(1, settings.queue.max_depth // 2)),
        in_order=not as_completed,
        retry_failed=retry_failed,
        restart=restart,
        cancel_on_interrupt=cancel_on_interrupt,
        as_json=as_json,
    )
    raise typer.Exit(run_file(settings, asked))


def _default_model(model: str | None, settings: Settings) -> dict[str, str]:
    """Return the model of lines that name none: where there is one only, it need not be named."""
    if model is None and len(settings.models) == 1:
        (model,) = settings.models
    return {} if model is None else {"model": model}


def _milliseconds(deadline: str | None) -> int | None:
    if deadline is None:
        return None
    if not (match := _DURATION.fullmatch(deadline)):
        raise ConfigError(f"--deadline must be as 90s, 30m, 12h or 1d, got {deadline[:40]!r}")
    return int(match[1]) * _UNIT_MS[match[2]]
