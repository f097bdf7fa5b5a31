"""Keep a share of the prompts, redacted, for calibration: off unless [capture].share is above 0.

A request pays one comparison, and if it is captured an entry in a short queue. A thread does the rest; where it cannot
keep up, prompts are dropped, never requests. They go to files, not to Redis: its memory belongs to the jobs, it evicts
nothing, and calibration reads these files where there is no Redis.

A folder has files of one JSON object a line: {"id", "at", "tenant", "model", "endpoint", "metadata", "prompt", "turns",
"tier": the lowest allowed, "priority", "max_latency_ms"} for a prompt, and {"id", "served": tier} once an awaited
request was answered. Each writer has files of its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from bitladder.contract import NO_CAPTURE, Labels, Submission
from bitladder.errors import RequestError
from bitladder.routing.accept import Accepted
from bitladder.routing.body import prompt_bytes, read_body, turns_of
from bitladder.settings.intake_section import CaptureSettings
from dispatcher.capture.labels import labels
from dispatcher.capture.redact import redact
from dispatcher.metrics.intake_metrics import IntakeMetrics

log = structlog.get_logger()
# Prompts that wait for the thread; of a burst above it a smaller share is kept.
_MAX_WAITING = 256
# What is kept of one prompt. A margin behind it is redacted too, so that no key is cut in two and missed.
_MAX_CHARS, _MARGIN_CHARS = 32_768, 8_192
# Captured prompts whose answers are awaited, to be matched with them; beyond it the oldest are forgotten.
_MAX_AWAITED = 4096
_FILE_BYTES, _FILE_S = 8 * 2**20, 3600.0
_TIDY_INTERVAL_S = 30.0
_STOP_S = 5.0

_Entry = tuple[str, Accepted | str]


class Capture:
    """The captured prompts of one intake."""

    def __init__(self, settings: Callable[[], CaptureSettings], metrics: IntakeMetrics) -> None:
        self._settings = settings  # as they are now
        self._captured = metrics.captured
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(_MAX_WAITING)
        self._awaited: dict[str, None] = {}
        self._writer = _Writer(settings)
        self._is_running, self._has_stopped = False, threading.Event()

    @property
    def is_needed(self) -> bool:
        """Whether run() has something to do. Where capturing was switched off, older files still expire."""
        return self._settings().share > 0 or _folder_of(self._settings()).exists()

    def stop(self) -> None:
        """Let run() write the prompts that wait, and return."""
        if self._is_running:
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=_STOP_S)
                self._has_stopped.wait(_STOP_S)

    def offer(self, accepted: Accepted) -> None:
        """Keep this prompt with the probability [capture].share, unless its tenant or itself is left out."""
        job = accepted.submission
        # A sample, not a secret: any source of randomness will do.
        settings = self._settings()
        if settings.share <= random.random():  # noqa: S311
            return
        if job.request.tenant in settings.without_tenants or _is_left_out(job):
            return
        if self._put((job.job_id, accepted)):
            self._awaited[job.job_id] = None
            if len(self._awaited) > _MAX_AWAITED:
                del self._awaited[next(iter(self._awaited))]

    def served(self, job_id: str, tier: str | None) -> None:
        """Note which tier answered a captured prompt."""
        if job_id in self._awaited:
            del self._awaited[job_id]
            if tier:
                self._put((job_id, tier))

    def _put(self, entry: _Entry) -> bool:
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._captured("dropped").inc()
            return False
        return True

    def run(self) -> None:
        """Write until stop(), in a thread of its own: disks may be slow."""
        self._is_running = True
        while True:
            try:
                entry = self._waiting.get(timeout=_TIDY_INTERVAL_S)
            except queue.Empty:
                self._writer.tidy()
                continue
            if entry is None:
                self._writer.close()
                self._has_stopped.set()
                return
            done = self._writer.write(_line(*entry))
            if isinstance(entry[1], Accepted):
                self._captured("written" if done else "dropped").inc()


def _folder_of(settings: CaptureSettings) -> Path:
    return Path(settings.folder).expanduser()


def _is_left_out(job: Submission) -> bool:
    return NO_CAPTURE in job.labels and NO_CAPTURE in msgspec.json.decode(job.labels, type=Labels).tags


def _line(job_id: str, what: Accepted | str) -> bytes:
    if isinstance(what, str):
        return msgspec.json.encode({"id": job_id, "served": what})
    request, envelope = what.submission.request, what.envelope
    try:
        body = read_body(request.endpoint, bytes(request.body))
    except RequestError:  # routing has read it already: only a change of its rules comes here
        return b""
    text = prompt_bytes(body).decode("utf-8", "replace")
    redacted = redact(text[: _MAX_CHARS + _MARGIN_CHARS])[:_MAX_CHARS]
    fields: dict[str, object] = {
        "id": job_id,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tenant": request.tenant,
        "model": what.submission.model,
        "endpoint": request.endpoint,
        "metadata": labels(bytes(request.body)),
        "prompt": redacted,
        "turns": turns_of(body),
        "tier": request.decision.floor,
        "priority": envelope.priority,
        "max_latency_ms": envelope.max_latency_ms,
    }
    return msgspec.json.encode(fields)


class _Writer:
    """The files of one intake, and the size and age of the whole folder."""

    def __init__(self, settings: Callable[[], CaptureSettings]) -> None:
        self._settings = settings
        self._folder = _folder_of(settings())
        self._name = secrets.token_hex(4)
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._opened_s = 0.0
        self._tidied_s = 0.0
        self._is_failing = False

    def write(self, line: bytes) -> bool:
        try:
            file = self._current()
            file.write(line + b"\n")
            file.flush()
        except OSError as error:
            if not self._is_failing:
                log.warning("prompts not captured", folder=str(self._folder), error=str(error))
            self._is_failing = True
            self.close()
            return False
        self._is_failing = False
        if time.monotonic() > self._tidied_s + _TIDY_INTERVAL_S:
            self.tidy()
        return True

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written is lost, which was logged
                self._file.close()
        self._file = self._path = None

    def tidy(self) -> None:
        """Remove files that have expired, and the oldest above the size allowed; never the file being written."""
        self._tidied_s = time.monotonic()
        limit = time.time() - self._settings().keep_s
        room = self._settings().max_mb * 2**20
        for path in sorted(self._folder.glob("*.jsonl"), reverse=True):
            with contextlib.suppress(OSError):  # another intake was faster
                status = path.stat()
                room -= status.st_size
                if path != self._path and (status.st_mtime < limit or room < 0):
                    path.unlink()

    def _current(self) -> BinaryIO:
        if self._file is not None and (self._file.tell() >= _FILE_BYTES or time.monotonic() > self._opened_s + _FILE_S):
            self.close()
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path = self._folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{self._name}.jsonl"
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
            self._opened_s = time.monotonic()
            self.tidy()
        return self._file
