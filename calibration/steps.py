"""Say on stderr what is being done and for how long: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """Shows one line per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.fields[tier]:>5}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show bars while steps are run, if anybody can see them."""
        if self._console.is_terminal:
            with self._bars:
                yield
        else:
            yield

    @contextmanager
    def step(self, tier: str, text: str) -> Iterator[None]:
        """Show a step while it runs, and its time when it is done; one that failed has no end."""
        started_s = time.monotonic()
        if self._console.is_terminal:
            task = self._bars.add_task(text, total=None, tier=tier)
            yield
            self._bars.update(task, total=1, completed=1)
        else:
            self.note(tier, f"{text} ...")
            yield
            self.note(tier, f"{text}: {time.monotonic() - started_s:.1f} s")

    def note(self, tier: str, text: str) -> None:
        """Show a fact that takes no time."""
        self._console.print(f"{tier:>5}  {text}", highlight=False, markup=False, soft_wrap=True)
