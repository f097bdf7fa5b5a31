"""How far a run is: a bar on a terminal, else a line every few seconds; on stderr, so that stdout is the output's."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from bitladder.cli.batch.journal import Journal

# Between two lines where there is no terminal.
_LINE_S = 5.0
# Reasons that are shown.
_MAX_REASONS = 5
# The rate is that of about so many seconds.
_WINDOW_S = 30.0


class Progress:
    """The counts of one run. Shown by a thread of its own, which only reads."""

    def __init__(self, journal: Journal, lines: int) -> None:
        self._journal, self._lines = journal, lines
        self._begun_s, self._before = time.monotonic(), journal.written
        self._marks = [(self._begun_s, journal.written)]
        self.in_flight = 0
        self.cost: float | None = None  # of this run of the command
        self.note = ""  # what it waits for

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun_s

    def paid(self, cost: float | None) -> None:
        if cost is not None:
            self.cost = cost + (self.cost or 0.0)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs."""
        console = Console(stderr=True)
        if console.is_terminal:
            with Live(console=console, get_renderable=self._bar, refresh_per_second=4, transient=True):
                yield
            return
        is_over = threading.Event()
        thread = threading.Thread(target=self._print_lines, args=(is_over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def text(self) -> str:
        """Return all of it in one line."""
        done, rate = self._journal.written, self._rate()
        parts = [f"{done} of {self._lines} lines"]
        if rate and done < self._lines:
            parts += [f"{rate:.1f}/s", f"{timedelta(seconds=round((self._lines - done) / rate))} left"]
        parts += [f"{self.in_flight} in flight"] if self.in_flight else []
        parts += [f"cost {self.cost:.6f}"] if self.cost is not None else []
        parts += [f"failed: {reasons_of(self._journal)}"] if self._journal.failed else []
        return ", ".join(parts) + (f" ({self.note})" if self.note else "")

    def _rate(self) -> float:
        now, done = time.monotonic(), self._journal.written
        self._marks = [mark for mark in self._marks if mark[0] > now - _WINDOW_S][-100:] or self._marks[-1:]
        self._marks.append((now, done))
        (since, before) = self._marks[0]
        return (done - before) / (now - since) if now > since else 0.0

    def _bar(self) -> Table:
        grid = Table.grid(padding=(0, 1), expand=False)
        grid.add_row(ProgressBar(total=self._lines, completed=self._journal.written, width=30), self.text())
        return grid

    def _print_lines(self, is_over: threading.Event) -> None:
        while not is_over.wait(_LINE_S):
            sys.stderr.write(f"{self.text()}\n")


def reasons_of(journal: Journal) -> str:
    """Return why lines failed, the most frequent first."""
    counts = journal.reasons.most_common()
    shown = [f"{count} {reason}" for reason, count in counts[:_MAX_REASONS]]
    others = sum(count for _, count in counts[_MAX_REASONS:])
    return ", ".join([*shown, f"{others} others"] if others else shown)
