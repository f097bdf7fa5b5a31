"""Run the lines of a file on the queue: each is submitted, awaited and written once, whatever happens in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bitladder.cli.batch.input_file import InputFile
from bitladder.cli.batch.journal import Journal
from bitladder.cli.batch.output_lines import output_line
from bitladder.cli.batch.run_progress import Progress
from bitladder.contract import Outcome, State
from bitladder.entries import Completed, Entry
from bitladder.errors import QueueUnreachableError
from bitladder.producer.connections import Connections, Read
from bitladder.producer.flow import Task, await_jobs, run_tasks
from bitladder.queue.calls.end import cancel_call

# So long a run waits for Redis, once it has answered.
_OUTAGE_S, _RETRY_S = 600.0, 2.0
# What was written is handed to the system at least so often.
_FLUSH_S = 0.2
# Until cancelled jobs that run have ended.
_CANCEL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a file."""

    source: InputFile
    journal: Journal
    progress: Progress
    connections: Connections
    read: Read
    max_in_flight: int
    emit: Callable[[bytes], None]  # called with each output line, as it is written


class LineRunner:
    """Runs what has no output yet."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._custom_ids: dict[int, str] = {}  # of the lines that were taken and have not ended
        self._flushed_s = 0.0

    def run(self) -> None:
        """Run all lines; those that fail have an output, too.

        Raises:
            QueueUnreachableError: Redis did not answer at the start, or for ten minutes.
            KeyboardInterrupt: Ctrl-C; jobs in flight go on.

        """
        failed_s: float | None = None
        begun = self._run.journal.written
        while True:
            written = self._run.journal.written
            try:
                self._run_once()
                return
            except QueueUnreachableError:
                now = time.monotonic()
                if self._run.journal.written > written or failed_s is None:
                    failed_s = now
                if self._run.journal.written == begun or now > failed_s + _OUTAGE_S:
                    raise
            self._run.progress.note = "Redis does not answer; waiting for it"
            time.sleep(_RETRY_S)

    def cancel(self) -> int:
        """Cancel the jobs in flight; return how many have ended so.

        What ends all the same is written, and the others are submitted anew by a later run.

        Raises:
            QueueUnreachableError: Redis does not answer, or its user may not cancel.

        """
        run = self._run
        settings, signer = run.connections.settings, run.connections.signer
        jobs = {number: run.journal.job_id(number) for number in self._custom_ids}
        with run.connections.scripts() as scripts:
            for answer in scripts.call_each(cancel_call(settings, signer, job_id) for job_id in jobs.values()):
                if isinstance(answer, Exception):
                    raise QueueUnreachableError(f"the jobs in flight are not cancelled: {answer}")
        try:
            for done in await_jobs(run.connections, iter(jobs.items()), _CANCEL_S, is_bounded=True):
                if isinstance(done.outcome, Outcome) and done.outcome.state is not State.CANCELLED:
                    self._write(done)
        except TimeoutError:
            pass  # their workers hear of it
        run.journal.cancelled()
        return len(self._custom_ids)

    def _run_once(self) -> None:
        run = self._run
        self._custom_ids.clear()
        for done in run_tasks(
            run.connections, self._tasks(), run.read, max_in_flight=run.max_in_flight, timeout_s=math.inf
        ):
            self._write(done)
            run.progress.in_flight, run.progress.note = len(self._custom_ids), ""
            if (now := time.monotonic()) > self._flushed_s + _FLUSH_S:
                run.journal.flush()
                self._flushed_s = now
        run.journal.flush()

    def _tasks(self) -> Iterator[Task]:
        for number, line in self._run.source.read():
            if not self._run.journal.is_written(number):
                self._custom_ids[number] = line.custom_id
                self._run.progress.in_flight = len(self._custom_ids)
                yield Task(number, self._run.journal.job_id(number), Entry(line.body, endpoint=line.url))

    def _write(self, done: Completed[Outcome]) -> None:
        run = self._run
        job_id = run.journal.job_id(done.index)
        line = output_line(job_id, self._custom_ids.pop(done.index), done.outcome)
        run.journal.write(line)
        if isinstance(done.outcome, Outcome):
            run.progress.paid(done.outcome.cost)
        run.emit(line)
