"""bitladder submit, result and cancel: one job from the command line."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import DEFAULT_URL, ApiKey, AsJson, Url
from bitladder.cli.output import ExitCode
from bitladder.client import Client
from bitladder.errors import ConfigError


def submit(
    prompt: Annotated[str, typer.Argument(help="The prompt; '-' reads it from standard input.")],
    model: Annotated[str, typer.Option(help="The model.")] = "smollm2",
    max_tokens: Annotated[int, typer.Option(help="Maximum of tokens in the answer.")] = 64,
    chat: Annotated[bool, typer.Option(help="As a chat message instead of a completion.")] = False,
    priority: Annotated[int | None, typer.Option(help="1 to 10.")] = None,
    max_latency_ms: Annotated[int | None, typer.Option(help="How long you can wait.")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="After it the job is dropped or aborted.")] = None,
    min_tier: Annotated[str | None, typer.Option(help="Lowest tier.")] = None,
    max_tier: Annotated[str | None, typer.Option(help="Highest tier.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="The most it may be expected to cost.")] = None,
    allow_below_floor: Annotated[bool | None, typer.Option(help="Consent to a lower tier than its floor.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait, and print the answer.")] = False,
    stream: Annotated[bool, typer.Option(help="Print the answer as it arrives.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Submit one prompt; prints its job id, or with --wait or --stream the answer.

    Example: bitladder submit "Write a haiku about queues" --priority 9 --wait
    """
    body = body_of(prompt, model, chat=chat) | {"max_tokens": max_tokens}
    options = {
        "priority": priority,
        "max_latency_ms": max_latency_ms,
        "deadline_ms": deadline_ms,
        "min_tier": min_tier,
        "max_tier": max_tier,
        "max_cost": max_cost,
        "allow_below_floor": allow_below_floor,
    }
    if stream and as_json:
        raise ConfigError("--stream prints text as it arrives, and --json the whole job: pass one of them")
    with intake_client(url, api_key) as client:
        if stream:
            for chunk in client.stream(body, **options):
                typer.echo(chunk, nl=False)
            typer.echo()
            return
        job = client.submit(body, **options)
        if wait:
            _show(client.wait(job["id"]), as_json=as_json)
        else:
            typer.echo(json.dumps(job, indent=2) if as_json else job["id"])


def result(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    wait: Annotated[bool, typer.Option(help="Wait until it is terminal.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show the outcome of a job.

    Example: bitladder result 0199… --wait
    """
    with intake_client(url, api_key) as client:
        _show(client.wait(job_id) if wait else client.result(job_id), as_json=as_json)


def cancel(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Cancel a job.

    Example: bitladder cancel 0199…
    """
    with intake_client(url, api_key) as client:
        job = client.cancel(job_id)
    typer.echo(json.dumps(job, indent=2) if as_json else job["status"])


def body_of(prompt: str, model: str, *, chat: bool) -> dict[str, Any]:
    """Return the body of a request; '-' reads its prompt from standard input."""
    text = sys.stdin.read() if prompt == "-" else prompt
    return {"model": model} | ({"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text})


def _answer_text(job: dict[str, Any]) -> str | None:
    """Return the text of a finished job, whichever its endpoint."""
    if job.get("text"):
        return str(job["text"])
    choices = (job.get("result") or {}).get("choices") or [{}]
    text = choices[0].get("text") or (choices[0].get("message") or {}).get("content")
    return None if text is None else str(text)


def _why(job: dict[str, Any]) -> str:
    """Return why a job failed, with what the engine said of it; nothing for one that has not."""
    errors = [job.get("error"), (job.get("result") or {}).get("error")]
    return "".join(f"{error['message']}; " for error in errors if error and error.get("message"))


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    """Show a job; the exit status says what became of it, with --json too."""
    is_finished = job["status"] == "finished"
    if as_json:
        typer.echo(json.dumps(job, indent=2))
    elif is_finished:
        typer.echo(_answer_text(job))
        floor = "" if job["floor"] in (None, job["tier"]) else f", floor {job['floor']}"
        typer.echo(f"[{job['tier']}{floor}: {job['reason']}; waited {job.get('queue_ms', 0):.0f} ms]", err=True)
    else:
        typer.echo(f"{job['status']}: {_why(job)}job {job['id']}", err=True)
    if not is_finished:
        raise typer.Exit(ExitCode.NOT_NOW if job["status"] in ("queued", "running") else ExitCode.FAILED)


class _IntakeClient(Client):
    """A client of whatever an intake answers as JSON."""

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  (of the client's own)
        return self._call(method, path, **arguments)


def intake_client(url: str, api_key: str | None) -> _IntakeClient:
    """Return a client of an intake.

    Raises:
        ConfigError: this is no URL, which may hold a password and is not repeated; or no key.

    """
    return _IntakeClient(url, api_key=api_key)
