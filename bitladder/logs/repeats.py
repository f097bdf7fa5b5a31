"""Lines of a log that repeat: written once, then counted, and the count is written every WINDOW_S and at the end.

Limited are warnings and worse, and all lines about single jobs. Of others the order counts ("worker ready" behind
"worker not ready"). Lines are the same where their words are: numbers, and the ids of jobs and requests, may differ.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import sys
import threading
from collections.abc import Hashable, MutableMapping
from typing import Any

import structlog

WINDOW_S = 10.0
# Kinds of lines that are told apart in one window; what else comes counts as one kind. Errors have room for as many
# beside them, and those above that are all written.
MAX_KINDS = 256
# Ids of jobs that the line with a count names.
MAX_NAMED = 16
_QUIET = ("debug", "info")
_SEVERE = ("error", "critical")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")
_MAX_WORDS = 300
_OF_ONE_LINE = ("exc_info", "job_id", "request_id", "trace_id")

Event = MutableMapping[str, Any]


class _Kind:
    """A line that was said, and what has come since."""

    def __init__(self) -> None:
        self.count = 0
        self.last: dict[str, Any] = {}
        self.job_ids: list[str] = []

    def add(self, event: Event) -> None:
        self.count += 1
        # An error's traceback keeps all that its functions held.
        self.last = {name: value for name, value in event.items() if name not in _OF_ONE_LINE}
        if "job_id" in event and len(self.job_ids) < MAX_NAMED:
            self.job_ids.append(event["job_id"])

    def line(self) -> dict[str, Any]:
        """Return the line that stands for all: the last one's words, without what is a single one's."""
        named = {"job_ids": self.job_ids} if self.job_ids else {}
        return self.last | named | {"repeated": self.count}


class Repeats:
    """A processor of structlog, behind those that add level and context."""

    def __init__(self) -> None:
        # Reentrant: whatever the collector of garbage finalizes may log as well, in the middle of a line of its thread.
        self._lock = threading.RLock()
        self._kinds: dict[Hashable, _Kind] = {}
        self._timer: threading.Timer | None = None
        atexit.register(self.flush)

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        """Let a line pass, or count it."""
        del logger, method
        if "repeated" in event or (event["level"] in _QUIET and "job_id" not in event):
            return event
        words, is_severe = _words(event), event["level"] in _SEVERE
        with self._lock:
            has_place = words in self._kinds or len(self._kinds) < MAX_KINDS * (1 + is_severe)
            if is_severe and not has_place:
                return event
            key = words if has_place else None
            if kind := self._kinds.get(key):
                kind.add(event)
                raise structlog.DropEvent
            self._kinds[key] = _Kind()
            self._start_timer()
        return event

    def flush(self) -> None:
        """Say what was counted; a kind that did not come again is forgotten."""
        with self._lock:
            kinds, self._kinds, self._timer = self._kinds, {}, None
            repeated = {key: kind for key, kind in kinds.items() if kind.count}
            for key in repeated:
                self._kinds.setdefault(key, _Kind())
            if self._kinds:
                self._start_timer()
        lines = [kind.line() for kind in repeated.values()]
        log = structlog.get_logger()
        for line in lines:
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                getattr(log, line.pop("level"))(line.pop("event"), **line)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(WINDOW_S, self.flush)
            self._timer.daemon = True
            try:
                self._timer.start()
            except RuntimeError:  # no thread can be started: the process ends, which flushes, or has too many
                self._timer = None


def _words(event: Event) -> Hashable:
    """Return what is the same in lines of one kind."""
    words = {name: str(value) for name, value in event.items() if isinstance(value, str) and not name.endswith("_id")}
    if error := event.get("exc_info"):
        words["exc_info"] = repr(
            sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
        )
    return tuple(sorted((name, _NUMBER.sub("#", text[:_MAX_WORDS])) for name, text in words.items()))
