"""bitladder batch submit, status, result, cancel and list: batches that an intake runs in the background."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import typer

from bitladder.cli.batch.input_file import InputFile
from bitladder.cli.batch.intake_batches import ENDED, IntakeBatches
from bitladder.cli.common_options import DEFAULT_URL, ApiKey, AsJson, BodyJson, Set, Url, body_fields
from bitladder.cli.output import ExitCode
from bitladder.errors import ConfigError, JobError
from calibration.terminal.tabular import table

# The intake has a limit of its own for a line; this one bounds what is read into memory.
_MAX_LINE_BYTES = 64 * 1024 * 1024
_POLL_S = 2.0
_COLUMNS = ("batch", "status", "total", "completed", "failed", "created")

_BatchId = Annotated[str, typer.Argument(help="The batch.")]
_Source = Annotated[str, typer.Argument(metavar="INPUT", help="A file of lines, plain or gzip; '-': standard input.")]
_Model = Annotated[
    str | None, typer.Option(help="The model of lines that name none (default: the intake's, where it has one only).")
]
_Window = Annotated[str, typer.Option(help="When lines that are left expire: 30m, 24h, 7d.")]
_Metadata = Annotated[list[str] | None, typer.Option("--metadata", help="A pair of the batch's metadata, as run=7.")]


def submit(
    source: _Source,
    model: _Model = None,
    fields: Set = None,
    body: BodyJson = None,
    window: _Window = "24h",
    metadata: _Metadata = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Upload a file of requests and have an intake run it; prints the batch's id. All lines are for one route.

    Example: bitladder batch submit in.jsonl --window 2h

    Example: bitladder batch status $(bitladder batch submit prompts.txt) --watch
    """
    defaults = ({} if model is None else {"model": model}) | body_fields(body, fields)
    pairs = _pairs(metadata)
    with IntakeBatches(url, api_key=api_key) as intake, contextlib.ExitStack() as files:
        if "model" not in defaults and (only := intake.only_model()):
            defaults["model"] = only
        lines = files.enter_context(contextlib.closing(InputFile(source, defaults, _MAX_LINE_BYTES)))
        lines.check()
        upload = files.enter_context(tempfile.TemporaryFile())
        endpoint = _write_lines(lines, upload)
        file_id = intake.upload(upload, "stdin.jsonl" if source == "-" else Path(source).name)["id"]
        try:
            batch = intake.create(
                input_file_id=file_id, endpoint=endpoint, completion_window=window, metadata=pairs or None
            )
        except JobError as error:
            if 400 <= (error.status or 0) < 500:  # there is no batch, and nobody else knows of the file
                intake.delete_file(file_id)
            raise
    typer.echo(json.dumps(batch, indent=2) if as_json else batch["id"])


def status(
    batch_id: _BatchId,
    watch: Annotated[bool, typer.Option("--watch", help="Until it has ended.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show how far a batch is. Exit status with --watch: 0: every line has an answer; 1: not so.

    Example: bitladder batch status batch_0199… --watch
    """
    with IntakeBatches(url, api_key=api_key) as intake:
        batch, shown = intake.batch(batch_id), ""
        while watch and batch["status"] not in ENDED:
            if (line := _line(batch)) != shown:
                typer.echo(shown := line, err=True)
            time.sleep(_POLL_S)
            batch = intake.batch(batch_id)
    typer.echo(json.dumps(batch, indent=2) if as_json else _line(batch))
    for error in (batch.get("errors") or {}).get("data", []):
        typer.echo(f"line {error['line']}: {error['message']}" if error.get("line") else error["message"], err=True)
    is_answered = batch["status"] == "completed" and not batch["request_counts"]["failed"]
    raise typer.Exit(ExitCode.DONE if is_answered or not watch else ExitCode.FAILED)


def result(
    batch_id: _BatchId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where it goes; '-': standard output.")] = Path("-"),
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Fetch a batch's output: answers first, then lines that failed. A download that broke off goes on where it was.

    Exit status: 0: every line has an answer; 1: not so; 5: it has not ended, and these are the results so far.

    Example: bitladder batch result batch_0199… -o out.jsonl
    """
    with IntakeBatches(url, api_key=api_key) as intake:
        batch = intake.batch(batch_id)
        is_ended = batch["status"] in ENDED
        if not is_ended:
            typer.echo(f"{_line(batch)}: these are the results so far", err=True)
        if str(output) == "-":
            for data in _contents(intake, batch, 0) if is_ended else intake.results(batch_id):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif is_ended:
            _download(intake, batch, output)
        else:
            with output.open("wb") as file:
                file.writelines(intake.results(batch_id))
    if not is_ended:
        raise typer.Exit(ExitCode.NOT_NOW)
    is_answered = batch["status"] == "completed" and not batch["request_counts"]["failed"]
    raise typer.Exit(ExitCode.DONE if is_answered else ExitCode.FAILED)


def cancel(batch_id: _BatchId, as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Cancel a batch; what is done is kept.

    Example: bitladder batch cancel batch_0199…
    """
    with IntakeBatches(url, api_key=api_key) as intake:
        batch = intake.cancel_batch(batch_id)
    typer.echo(json.dumps(batch, indent=2) if as_json else batch["status"])


def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the latest first.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """List the batches of an intake, the latest first.

    Example: bitladder batch list
    """
    with IntakeBatches(url, api_key=api_key) as intake:
        listed = intake.batches(limit)
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    rows = [
        (
            batch["id"],
            batch["status"],
            *(batch["request_counts"][count] for count in ("total", "completed", "failed")),
            datetime.fromtimestamp(batch["created_at"], UTC).isoformat(),
        )
        for batch in listed["data"]
    ]
    typer.echo(table(_COLUMNS, rows))


def _pairs(metadata: list[str] | None) -> dict[str, str]:
    """Return the pairs of --metadata.

    Raises:
        ConfigError: one is no pair.

    """
    pairs = [text.partition("=") for text in metadata or ()]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise ConfigError(f"--metadata must be as run=7, got {wrong[0][:80]!r}")
    return {name: value for name, _, value in pairs}


def _write_lines(lines: InputFile, upload: IO[bytes]) -> str:
    """Write the lines in OpenAI's form; return their route.

    Raises:
        ConfigError: a line is for another route than the first one.

    """
    endpoint = ""
    for number, line in lines.read():
        endpoint = endpoint or line.url
        if line.url != endpoint:
            raise ConfigError(
                f"{lines.name} cannot be submitted, and nothing of it was uploaded: all lines of a batch must be for "
                f"one route, got {line.url} in line {number} after {endpoint}"
            )
        fields = {"custom_id": line.custom_id, "method": "POST", "url": line.url, "body": msgspec.Raw(line.body)}
        upload.write(msgspec.json.encode(fields) + b"\n")
    upload.seek(0)
    return endpoint


def _line(batch: dict[str, Any]) -> str:
    counts = batch["request_counts"]
    done = f"{counts['completed'] + counts['failed']} of {counts['total']} lines"
    return f"{batch['id']} {batch['status']}: {done}" + (f", {counts['failed']} failed" if counts["failed"] else "")


def _contents(intake: IntakeBatches, batch: dict[str, Any], start: int) -> Iterator[bytes]:
    """Yield the bytes of a batch's files, the one behind the other, from one byte on."""
    for file_id, size in intake.sizes(batch):
        if start < size:
            yield from intake.content(file_id, start)
        start = max(0, start - size)


def _download(intake: IntakeBatches, batch: dict[str, Any], output: Path) -> None:
    """Fetch into `<output>.<batch>.part`, which a later call goes on with, and put it in its place when it is whole."""
    part = output.with_name(f"{output.name}.{batch['id']}.part")
    with part.open("ab") as file:
        for data in _contents(intake, batch, file.tell()):
            file.write(data)
    part.replace(output)
