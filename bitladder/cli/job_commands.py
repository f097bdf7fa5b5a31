"""bitladder submit, result and cancel: one job from the command line."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from bitladder.client import Client, JobError

Url = Annotated[str, typer.Option(envvar="BITLADDER_URL", help="The intake.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="BITLADDER_API_KEY", help="The intake's API key; as a variable, ps does not show it."),
]
DEFAULT_URL = "http://127.0.0.1:8000"


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
    wait: Annotated[bool, typer.Option(help="Wait, and print the answer.")] = False,
    stream: Annotated[bool, typer.Option(help="Print the answer as it arrives.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Submit one prompt; prints its job id, or with --wait or --stream the answer.

    Example: bitladder submit "Write a haiku about queues" --priority 9 --wait
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens}
    body |= {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    options = {
        "priority": priority,
        "max_latency_ms": max_latency_ms,
        "deadline_ms": deadline_ms,
        "min_tier": min_tier,
        "max_tier": max_tier,
    }
    with _client(url, api_key) as client:
        if stream:
            for chunk in client.stream(body, **options):
                typer.echo(chunk, nl=False)
            typer.echo()
            return
        job = client.submit(body, **options)
        if not wait:
            typer.echo(job["id"])
            return
        _show(client.wait(job["id"]), as_json=False)


def result(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    wait: Annotated[bool, typer.Option(help="Wait until it is terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show the outcome of a job.

    Example: bitladder result 0199… --wait
    """
    with _client(url, api_key) as client:
        _show(client.wait(job_id) if wait else client.result(job_id), as_json=as_json)


def cancel(
    job_id: Annotated[str, typer.Argument(help="The job.")], url: Url = DEFAULT_URL, api_key: ApiKey = None
) -> None:
    """Cancel a job.

    Example: bitladder cancel 0199…
    """
    with _client(url, api_key) as client:
        typer.echo(client.cancel(job_id)["status"])


def _answer_text(job: dict[str, Any]) -> str | None:
    """Return the text of a finished job, whichever its endpoint."""
    if job.get("text"):
        return str(job["text"])
    choices = (job.get("result") or {}).get("choices") or [{}]
    text = choices[0].get("text") or (choices[0].get("message") or {}).get("content")
    return None if text is None else str(text)


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(job, indent=2))
    elif job["status"] == "finished":
        typer.echo(_answer_text(job))
        typer.echo(f"[{job['tier']}: {job['reason']}; waited {job.get('queue_ms', 0):.0f} ms]", err=True)
    else:
        error = (job.get("error") or {}).get("message", "")
        typer.echo(f"{job['status']} {error}".strip(), err=True)
        raise typer.Exit(0 if job["status"] in ("queued", "running") else 1)


class _Reported(Client):
    """A client whose errors are one line and exit status 1."""

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if isinstance(details[1], JobError):
            typer.echo(f"bitladder: {details[1]}", err=True)
            raise typer.Exit(1)


def _client(url: str, api_key: str | None) -> Client:
    return _Reported(url, api_key=api_key)
