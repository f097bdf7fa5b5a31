"""One call of `bitladder batch run`: open the files, run what is missing, say what became of it."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitladder.cli.batch.input_file import InputFile
from bitladder.cli.batch.journal import Journal
from bitladder.cli.batch.run_lines import LineRunner, Run
from bitladder.cli.batch.run_progress import Progress
from bitladder.cli.output import ExitCode
from bitladder.entries import Entry
from bitladder.errors import BitladderError, ConfigError, RequestError
from bitladder.producer.connections import Connections, Read
from bitladder.queue_name import Lane
from bitladder.settings.sections import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRun:
    """What was asked for."""

    source: str
    output: str
    fields: dict[str, Any]
    headers: dict[str, str]
    lane: Lane
    max_in_flight: int
    in_order: bool
    retry_failed: bool
    restart: bool
    cancel_on_interrupt: bool
    as_json: bool

    @property
    def is_kept(self) -> bool:
        """Whether the output is a file, which a later run can go on with."""
        return self.output != "-"

    @property
    def options(self) -> Mapping[str, Any]:
        """What makes other requests of the same lines."""
        headers = {name: value for name, value in self.headers.items() if name != "x-deadline-ms"}
        return {"fields": self.fields, "headers": headers}


def run_file(settings: Settings, asked: FileRun) -> ExitCode:
    """Run the lines of a file that have no output yet.

    Raises:
        ConfigError: the input or the output is wrong.
        QueueUnreachableError: Redis does not answer, or has not for ten minutes.

    """
    if asked.as_json and not asked.is_kept:
        raise ConfigError("--json prints its summary on stdout, where -o - has the answers: pass one of them")
    with contextlib.suppress(FileNotFoundError):
        if asked.is_kept and Path(asked.output).samefile(asked.source):
            raise ConfigError(f"{asked.output} is the input: name another output")
    with contextlib.ExitStack() as stack:
        source = InputFile(asked.source, asked.fields, settings.intake.max_body_bytes)
        stack.callback(source.close)
        checked = source.check()
        connections = Connections(settings)
        stack.callback(connections.close)
        read = connections.reader(asked.lane, asked.headers)
        _check_options(source, read)
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if not asked.is_kept else ""
        output = Path(asked.output) if asked.is_kept else Path(folder, "output")
        journal = Journal(output, checked, asked.options, restart=asked.restart)
        stack.callback(journal.close)
        if asked.retry_failed:
            journal.forget_failed()
        progress = Progress(journal, len(checked.numbers))
        if journal.is_resumed:
            _say(f"going on: {progress.text()}")
        run = Run(
            source=source,
            journal=journal,
            progress=progress,
            connections=connections,
            read=read,
            max_in_flight=asked.max_in_flight,
            emit=_emit_nothing if asked.is_kept else _emitter(journal, checked.numbers, in_order=asked.in_order),
        )
        return _run(run, asked, len(checked.numbers))


def _check_options(source: InputFile, read: Read) -> None:
    """Refuse what the options say of all lines, before there is an output: the first line is read with them.

    Raises:
        ConfigError: an option is wrong, such as a tier that there is not.

    """
    _, line = next(source.read())
    try:
        read(Entry(line.body, endpoint=line.url))
    except RequestError as error:
        if (error.param or "").startswith("X-"):
            raise ConfigError(f"{error}: nothing was submitted") from error  # else it is about this line alone


def _run(run: Run, asked: FileRun, lines: int) -> ExitCode:
    runner = LineRunner(run)
    try:
        with run.progress.shown():
            if run.journal.written < lines:
                runner.run()
        run.journal.finish(in_order=asked.in_order)
    except KeyboardInterrupt:
        _interrupted(runner, run, asked)
        return ExitCode.INTERRUPTED
    _say(run.progress.text())
    if run.journal.failed and asked.is_kept:
        _say("run the failed lines again with --retry-failed")
    if asked.as_json:
        summary = {
            "lines": lines,
            "answered": lines - run.journal.failed,
            "failed": run.journal.failed,
            "reasons": dict(run.journal.reasons.most_common()),
            "cost": run.progress.cost,
            "seconds": round(run.progress.seconds, 3),
            "output": asked.output,
        }
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    return ExitCode.FAILED if run.journal.failed else ExitCode.DONE


def _interrupted(runner: LineRunner, run: Run, asked: FileRun) -> None:
    """Say what was done, what becomes of the jobs in flight, and how to go on.

    Another Ctrl-C is ignored: half of the jobs cancelled, and none noted as such, would be failed lines.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    what = f"{run.progress.in_flight} jobs in flight go on"
    if asked.cancel_on_interrupt or not asked.is_kept:  # nobody could come back for them
        try:
            what = f"{runner.cancel()} jobs in flight were cancelled"
        except BitladderError as error:
            what = f"{what}: {error}"
    run.journal.flush()
    _say(f"interrupted: {run.journal.written} lines have an output, {what}.")
    if asked.is_kept:
        _say(f"The outputs so far are in {asked.output}.part. The same command again goes on where this one was.")


def _emit_nothing(line: bytes) -> None:
    """Leave a line to the journal."""


def _emitter(journal: Journal, numbers: array[int], *, in_order: bool) -> Callable[[bytes], None]:
    """Return what writes lines to standard output: as they come, or each when those before it have come."""
    place = 0

    def emit(line: bytes) -> None:
        nonlocal place
        if not in_order:
            sys.stdout.buffer.write(line)
        first = place
        while in_order and place < len(numbers) and journal.is_written(numbers[place]):
            place += 1
        if place > first:
            sys.stdout.buffer.writelines(journal.lines(numbers[first:place]))
        sys.stdout.buffer.flush()

    return emit


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
