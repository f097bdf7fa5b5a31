"""Show progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

# Called with how much is done, and of how much, if that is known.
Advance = Callable[[int, int | None], None]
_SAY_EVERY_S = 15.0


class TimeLeft(ProgressColumn):
    """How long a task will still take: by its own speed, or else by its field `expected_s`."""

    def render(self, task: Task) -> Text:
        if task.finished or task.stop_time is not None:
            return Text("")
        left_s, expected_s = task.time_remaining, task.fields.get("expected_s")
        if left_s is None and expected_s is not None:
            left_s = expected_s - (task.elapsed or 0)
        if left_s is None:
            return Text("")
        return Text(f"{duration(left_s)} left" if left_s > 0 else "any moment now", style="progress.remaining")


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 6 min, 30 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def time_left(elapsed_s: float, done: int, total: int | None) -> str:
    """Return a clause that says how long the rest takes at the speed so far; '' where that is not known."""
    if not done or total is None or done >= total:
        return ""
    return f", {duration(elapsed_s / done * (total - done))} left"


def now_and_then(say: Callable[[str], None], text: str, unit: int = 1) -> Advance:
    """Return a function that says every quarter of a minute how far a step came, in units of so many."""
    started_s = said_s = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if now_s - said_s >= _SAY_EVERY_S:
            said_s = now_s
            counted = _of(done // unit, None if total is None else total // unit, " of ")
            say(f"{text}: {counted}{time_left(now_s - started_s, done, total)}")

    return advance


class Steps:
    """Shows one line per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Text of a step -> how long it took last: the next tier's will take about as long.
        self._took_s: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("{task.fields[tier]:>5}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[of]:>7}"),
            TimeElapsedColumn(),
            TimeLeft(),
            TextColumn("{task.description}"),
            console=console,
        )

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show bars while steps run, if the console is a terminal."""
        if self._console.is_terminal:
            with self._bars:
                yield
        else:
            yield

    @contextmanager
    def step(self, tier: str, text: str, *, expected_s: float | None) -> Iterator[Advance]:
        """Show a step while it runs, and its time when it is done; the bar of a failed step shows that it failed.

        `expected_s` is said until the step reports how much of how much is done; None where nobody can know. A step
        that another tier had before is expected to take as long as it took there.
        Yields the function to report progress with.
        """
        started_s = time.monotonic()
        expected_s = self._took_s.get(text, expected_s)
        if self._console.is_terminal:
            task = self._bars.add_task(text, total=None, tier=tier, of="", expected_s=expected_s)
            try:
                yield lambda done, total: self._bars.update(task, completed=done, total=total, of=_of(done, total))
            except BaseException:
                self._bars.update(task, total=1, completed=0, of="failed")
                self._bars.stop_task(task)
                raise
            self._bars.update(task, total=1, completed=1)
        else:
            self.note(tier, f"{text} ..." + (f" (about {duration(expected_s)})" if expected_s else ""))
            yield now_and_then(lambda line: self.note(tier, line), text)
            self.note(tier, f"{text}: {time.monotonic() - started_s:.1f} s")
        self._took_s[text] = time.monotonic() - started_s

    def note(self, tier: str, text: str) -> None:
        """Show a fact that takes no time."""
        self._console.print(f"{tier:>5}  {text}", highlight=False, markup=False, soft_wrap=True)


def _of(done: int, total: int | None, between: str = "/") -> str:
    return f"{done:,}" if total is None else f"{done}{between}{total}"
