"""bitladder submit, result and cancel: one job from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    BodyJson,
    Set,
    Url,
    body_fields,
    with_envelope,
)
from bitladder.cli.output import ExitCode
from bitladder.client import Client
from bitladder.client.answers import Job, headers_of
from bitladder.errors import ConfigError
from bitladder.queue_name import Lane

_Prompt = Annotated[str | None, typer.Argument(help="The prompt; '-' reads it from standard input.")]
_File = Annotated[
    Path | None, typer.Option(help="The body instead, a JSON object, or the prompt as text; '-': standard input.")
]
_Model = Annotated[str | None, typer.Option(help="The model (default: the body's, else smollm2).")]
_MaxTokens = Annotated[int | None, typer.Option(help="Maximum of tokens in the answer (default: the body's, else 64).")]
_Chat = Annotated[bool, typer.Option(help="As a chat message instead of a completion.")]
_Endpoint = Annotated[str | None, typer.Option(help="The engine's route, as /v1/embeddings (default: by the body).")]
_Lane = Annotated[Lane | None, typer.Option(help="The lane (default: by priority).")]
_Webhook = Annotated[str | None, typer.Option(help="URL of yours that is told when it has ended.")]
_WebhookSecret = Annotated[
    str | None, typer.Option(envvar="BITLADDER_WEBHOOK_SECRET", help="With --webhook: signs what is posted.")
]
_Stream = Annotated[bool, typer.Option(help="Print the answer as it arrives.")]


# Fields that limit an answer's tokens.
_LIMITS = {"max_tokens", "max_completion_tokens"}


@with_envelope
def submit(
    prompt: _Prompt = None,
    file: _File = None,
    model: _Model = None,
    max_tokens: _MaxTokens = None,
    chat: _Chat = False,
    fields: Set = None,
    body: BodyJson = None,
    endpoint: _Endpoint = None,
    lane: _Lane = None,
    webhook: _Webhook = None,
    webhook_secret: _WebhookSecret = None,
    wait: Annotated[bool, typer.Option(help="Wait, and print the answer.")] = False,
    stream: _Stream = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    *,
    envelope: dict[str, Any],
) -> None:
    """Submit one prompt or body; prints its job id, or with --wait or --stream the answer.

    Example: bitladder submit "Write a haiku about queues" --priority 9 --wait

    Example: bitladder submit --file body.json --lane batch --set temperature=0.2

    Example: bitladder submit --body '{"input": ["a", "b"]}' --endpoint /v1/embeddings --wait --json
    """
    if stream and (as_json or endpoint or lane):
        raise ConfigError("--stream prints a completion or chat as text: leave out --json, --endpoint and --lane")
    request = _body_of_options(prompt, file, chat=chat) | body_fields(body, fields)
    request = _completed(request, model, max_tokens, is_prompt=not endpoint)
    with intake_client(url, api_key) as client:
        if stream:
            for chunk in client.stream(request, **envelope):
                typer.echo(chunk, nl=False)
            typer.echo()
            return
        hook = {"webhook_url": webhook, "webhook_secret": webhook_secret} if webhook else {}
        job = client.submit_to(request, endpoint=endpoint, lane=lane, **envelope, **hook)
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


def body_of(prompt: str, model: str, *, chat: bool) -> dict[str, Any]:
    """Return the body of a request; '-' reads its prompt from standard input."""
    return {"model": model} | _prompt_body(sys.stdin.read() if prompt == "-" else prompt, chat=chat)


def _body_of_options(prompt: str | None, file: Path | None, *, chat: bool) -> dict[str, Any]:
    """Return the body that a prompt or a file makes; none where there is neither."""
    if prompt is not None and file is not None:
        raise ConfigError("submit takes a prompt or --file, not both")
    if prompt is not None:
        return _prompt_body(sys.stdin.read() if prompt == "-" else prompt, chat=chat)
    if file is None:
        return {}
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    if not text.lstrip().startswith("{"):
        return _prompt_body(text, chat=chat)
    try:
        body: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--file {file} begins like a JSON object, and is none: {error}") from error
    return body


def _completed(
    request: dict[str, Any], model: str | None, max_tokens: int | None, *, is_prompt: bool
) -> dict[str, Any]:
    """Return a body with its model, and of a completion or chat with a limit of tokens."""
    if not request:
        raise ConfigError("submit needs a prompt, or a body: --file, --body or --set")
    named = {"model": model or request.get("model", "smollm2")}
    if max_tokens is not None:
        named["max_tokens"] = max_tokens
    elif is_prompt and not _LIMITS & request.keys():
        named["max_tokens"] = 64
    return request | named


def _prompt_body(text: str, *, chat: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}


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

    def submit_to(self, body: dict[str, Any], *, endpoint: str | None, lane: Lane | None, **options: Any) -> Job:  # noqa: ANN401
        """Submit a body to a route and a lane."""
        query = {"endpoint": endpoint, "lane": lane}
        return self._submit(body, headers_of(options), {name: value for name, value in query.items() if value})


def intake_client(url: str, api_key: str | None) -> _IntakeClient:
    """Return a client of an intake.

    Raises:
        ConfigError: this is no URL, which may hold a password and is not repeated; or no key.

    """
    return _IntakeClient(url, api_key=api_key)
