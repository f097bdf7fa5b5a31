"""Say on stderr how far a run came: a moving line on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from calibration.sample.bookmark import SampleProgress
from calibration.terminal.escape import printable
from calibration.terminal.progress import time_left

_SAY_EVERY_S = 15.0


class Reading:
    """Shows the progress of one run; where the bytes of all units are known, the time that is left as well."""

    def __init__(self, console: Console, sizes: Mapping[str, int] | None = None) -> None:
        self._console = console
        self._sizes = sizes or {}
        self._total = sum(self._sizes.values())
        self._status = console.status("reading")
        self._stack = ExitStack()
        self._latest: SampleProgress | None = None
        self._started_s = self._said_s = time.monotonic()
        # What an earlier run read, in entries and in bytes.
        self._first: int | None = None
        self._first_bytes = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._stack.enter_context(self._status)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._latest is not None:
            self._console.print(self._text(self._latest), highlight=False, markup=False, soft_wrap=True)

    def show(self, progress: SampleProgress) -> None:
        if self._first is None:
            self._first, self._first_bytes = progress.seen, self._bytes_until(progress.unit)
        self._latest = progress
        if self._console.is_terminal:
            self._status.update(Text(self._text(progress)))
        elif time.monotonic() > self._said_s + _SAY_EVERY_S:
            self._said_s = time.monotonic()
            self._console.print(self._text(progress), highlight=False, markup=False, soft_wrap=True)

    def _text(self, progress: SampleProgress) -> str:
        elapsed_s = time.monotonic() - self._started_s
        rate = (progress.seen - (self._first or 0)) / max(0.001, elapsed_s)
        skipped = sum(progress.skipped.values())
        unit = printable(progress.unit) or "the first one"
        done, total = (count - self._first_bytes for count in (self._bytes_until(progress.unit), self._total))
        left = time_left(elapsed_s, done, total)
        return f"{progress.seen:,} read ({rate:,.0f}/s){left}, {skipped:,} skipped, last {unit}"

    def _bytes_until(self, unit: str) -> int:
        return sum(size for name, size in self._sizes.items() if name <= unit)
