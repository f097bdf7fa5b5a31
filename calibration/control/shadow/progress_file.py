"""What a shadow has looked at, what waits for its turn, and what was spent: one file, written before each request.

The labels themselves are lines of another file, in which a line is written whole or not at all. Where both do not say
the same, because a process was killed between them, the labels count.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from calibration.artifacts.folder import replace_file, writing
from calibration.control.shadow.capture_reader import Mark
from calibration.control.shadow.ledger import Ledger
from calibration.errors import InputError

PROGRESS, LABELS = "progress.json", "labels.jsonl"
SCHEMA = 1
_MAX_LABEL_BYTES = 2**20


class Waiting(msgspec.Struct):
    """A chosen prompt whose turn has not come: where it stands in the capture, and what is known of its job."""

    file: str
    start: int
    at: str  # when it was accepted
    served: str = ""
    cost: float | None = None
    costs_elsewhere: dict[str, float] = {}  # by tier, what its answer would have cost there
    is_settled: bool = False  # the job has ended, or nobody knows it any more
    tries: int = 0


class Counts(msgspec.Struct):
    """What became of the prompts of a capture."""

    seen: int = 0
    chosen: int = 0
    skipped: dict[str, int] = {}
    files_gone: int = 0  # of the capture, before they were read to their end
    interrupted: int = 0  # requests that were withdrawn for traffic

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class Progress(msgspec.Struct):
    """The file."""

    schema: int = SCHEMA
    marks: dict[str, Mark] = {}
    waiting: dict[str, Waiting] = {}  # by the job's id, the oldest first
    counts: Counts = msgspec.field(default_factory=Counts)
    ledger: Ledger = msgspec.field(default_factory=Ledger)


class ShadowFolder:
    """The two files in a folder that only its owner can read: labels may have prompts in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.labels = folder / LABELS

    def load(self) -> Progress:
        """Return the progress so far, what was in flight as spent; the caller takes what has a label as done.

        Raises:
            InputError: the file is not such a one.

        """
        path = self._folder / PROGRESS
        progress = Progress()
        if path.exists():
            try:
                progress = msgspec.json.decode(path.read_bytes(), type=Progress)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InputError(f"{path} cannot be read: {error}; with another --out all begins anew") from error
            if progress.schema != SCHEMA:
                raise InputError(f"{path}: schema {progress.schema}, expected {SCHEMA}")
        self._end_torn_line()
        progress.ledger.recover()
        return progress

    def save(self, progress: Progress) -> None:
        with writing(self._folder):
            replace_file(self._folder / PROGRESS, msgspec.json.encode(progress), mode=0o600)

    def append(self, label: dict[str, Any]) -> None:
        """Write one label, and return when it is on disk; where the disk is full, nothing of it stays."""
        with (
            writing(self._folder),
            open(self.labels, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)) as file,
        ):
            end, line = file.tell(), msgspec.json.encode(label) + b"\n"
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise

    def read_labels(self) -> Iterator[dict[str, Any]]:
        """Yield the labels so far."""
        if self.labels.exists():
            with self.labels.open("rb") as file:
                for line in file:
                    yield self._read(line)

    def _read(self, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            label = msgspec.json.decode(line)
            if isinstance(label, dict) and {"job", "served_by", "reference", "tiers"} <= set(label):
                return label
        raise InputError(f"{self.labels} has a line that is no label of a shadow: {line[:80]!r}")

    def _end_torn_line(self) -> None:
        """Cut off a line that a killed process had not written to its end."""
        if not self.labels.exists():
            return
        with self.labels.open("r+b") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _MAX_LABEL_BYTES)
            file.seek(start)
            end = file.read()
            if not end.endswith(b"\n"):
                file.truncate(start + end.rfind(b"\n") + 1)
