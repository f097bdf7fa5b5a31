"""bitladder explain: why a job went where it went, or where a prompt would go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import DEFAULT_URL, ApiKey, AsJson, Url, with_envelope
from bitladder.cli.job_commands import body_of, intake_client
from bitladder.client.answers import envelope_headers, job_path
from bitladder.errors import ConfigError


@with_envelope
def explain(
    job_id: Annotated[str | None, typer.Argument(help="The job.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt instead; '-' reads it from standard input.")] = None,
    model: Annotated[str, typer.Option(help="With --prompt: the model.")] = "smollm2",
    chat: Annotated[bool, typer.Option(help="With --prompt: as a chat message instead of a completion.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    *,
    envelope: dict[str, Any],
) -> None:
    """Say why a job went where it went; with --prompt, where a prompt would go, without running it.

    Example: bitladder explain --prompt "Why is the sky blue?" --priority 9
    """
    if (job_id is None) == (prompt is None):
        raise ConfigError("explain needs either the id of a job or --prompt, and not both")
    with intake_client(url, api_key) as client:
        if job_id is not None:
            answer = client.call("GET", f"{job_path(job_id)}/explain")
        elif prompt is not None:
            headers = envelope_headers(envelope)
            answer = client.call("POST", "/v1/route", json=body_of(prompt, model, chat=chat), headers=headers)
    typer.echo(json.dumps(answer, indent=2) if as_json else "\n".join(_lines(answer)))


def _way(answer: dict[str, Any]) -> Iterator[str]:
    """Yield what became of a job before it came where it is."""
    if moved := answer.get("moved"):
        yield f"moved     by an operator, from {moved['from']}"
    for execution in answer.get("executions", []):
        yield f"execution at {execution['tier']} by {execution['worker']}: {execution['error'] or execution['code']}"


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    """Yield an explanation as text."""
    yield f"floor     {answer['floor']}: {answer['reason']} ({answer['policy'] or 'no policy'})"
    for rule in answer.get("rules", []):
        yield f"  {'yes' if rule['holds'] else 'no '}     {rule['rule']} -> {rule['floor']}"
    below = f"; with consent {', '.join(answer['below_floor'])}" if answer["below_floor"] else ""
    yield f"allowed   {', '.join(answer['allowed'])}{below}"
    yield f"lane      {answer['lane']}"
    yield from _way(answer)
    if "status" in answer:
        why = f": {answer['error']['message']}" if answer["error"] else ""
        yield f"status    {answer['status']}, attempts: {answer['attempts']}{why}"
    if expected := answer if "wait_s" in answer else answer["expected"]:
        wait = "unknown" if expected["wait_s"] is None else f"{expected['wait_s']:.1f} s"
        yield f"now       {expected['tier'] or 'no live worker'}; {expected['jobs_ahead']} jobs ahead, wait {wait}"
    elif answer["tier"]:
        came = f", overflowed from {answer['overflowed_from']}" if answer["overflowed_from"] else ""
        came += ", below its floor with consent" if answer["served_below_floor"] else ""
        word = "served   " if answer["status"] == "finished" else "last at  "
        yield f"{word} {answer['tier']}{came}; waited {answer['queue_ms']:.0f} ms, ran {answer['run_ms']:.0f} ms"
        yield f"cost      {_cost(answer['cost'])}"
    costs = answer.get("expected_costs") or answer.get("costs_elsewhere") or {}
    if costs:
        yield "costs expected" if "expected_costs" in answer else "costs of its tokens now"
    for tier, cost in costs.items():
        yield f"  at {tier}: {_cost(cost)}"


def _cost(cost: float | None) -> str:
    return "not known" if cost is None else f"{cost:.8f}"
