"""What a run has done so far, on disk: it can be killed at any moment, and goes on with nothing lost and nothing twice.

`<output>.state` has the run's id, which the ids of its jobs begin with, and what its input was. It is there before the
first job. `<output>.part` has an output line for each job that has ended, in the order in which they ended. When all
have, the lines become `<output>`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import uuid_utils

from bitladder.cli.batch.input_file import Checked
from bitladder.cli.batch.output_lines import read_output_line
from bitladder.errors import ConfigError
from bitladder.ids import numbered_id

_NONE = -1  # the offset of a line that is not written
_MAX_KINDS = 250  # reasons that are told apart: a byte for each line


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """What `<output>.state` holds."""

    run: str
    lines: int
    sha256: str  # of the input
    options: str  # a digest of what else makes a request
    attempt: int = 1  # that lines without an answer begin with: cancelled jobs are not taken up again
    version: int = 1


class Journal:
    """The output of one run; one process at a time has it open."""

    def __init__(self, output: Path, checked: Checked, options: Mapping[str, Any], *, restart: bool = False) -> None:
        """Begin a run, or go on with the one that has begun this output.

        Raises:
            ConfigError: the output is another run's, or not a run's at all, or is being written now.

        """
        self.output = output
        self._state_file, self._part_file = (output.with_name(output.name + end) for end in (".state", ".part"))
        digest = hashlib.sha256(msgspec.json.encode(dict(options), order="deterministic")).hexdigest()
        begun = _State(run=str(uuid_utils.uuid7()), lines=len(checked.numbers), sha256=checked.sha256, options=digest)
        if restart:
            self._drop()
        stored = self._stored()
        self.is_resumed = stored is not None
        self._state = self._checked(stored, begun) if stored else begun
        if stored is None:
            self._save()
        self._numbers = checked.numbers
        top = max(checked.numbers, default=0) + 1
        self._offsets, self._attempts = array("q", [_NONE]) * top, bytearray(top)
        self._kinds, self._kind_of = [""], bytearray(top)  # reasons, and which one each line has: the first is none
        self.written = self.failed = 0  # lines that have an output; those of them that have no answer
        self._is_whole = False  # the output is in its place
        self._file = self._opened()

    @property
    def reasons(self) -> Counter[str]:
        """Why lines have no answer, and how many each."""
        counts = np.bincount(np.frombuffer(self._kind_of, np.uint8), minlength=len(self._kinds))
        return Counter({kind: int(count) for kind, count in zip(self._kinds[1:], counts[1:], strict=True) if count})

    def job_id(self, number: int) -> str:
        """Return the id of a line's job: the same as before, unless that one has failed or was cancelled."""
        last = self._attempts[number]
        return numbered_id(self._state.run, number, max(last + 1 if last else 1, self._state.attempt))

    def is_written(self, number: int) -> bool:
        return self._offsets[number] != _NONE

    def write(self, line: bytes) -> str:
        """Write one output line; return why its request has no answer, '' where it has."""
        if self._is_whole:
            self.output.replace(self._part_file)
            self._is_whole = False
        reason = self._take(line, self._file.tell())
        self._file.write(line)
        return reason

    def flush(self) -> None:
        """Hand what was written to the system: it outlives this process, not the machine."""
        self._file.flush()

    def forget_failed(self) -> None:
        """Let lines that have failed run again, as jobs of their own."""
        for number in self._numbers:
            if self._kind_of[number]:
                self._offsets[number], self._kind_of[number] = _NONE, 0
        self.written, self.failed = self.written - self.failed, 0

    def cancelled(self) -> None:
        """Note that the jobs without an outcome were cancelled: a later run makes others."""
        attempt = max(max(self._attempts) + 1, self._state.attempt) + 1
        self._state = msgspec.structs.replace(self._state, attempt=attempt)
        self._save()

    def finish(self, *, in_order: bool) -> None:
        """Put the output in its place: all lines are written."""
        if self._is_whole:
            return
        ready = self.output.with_name(self.output.name + ".ready")
        with ready.open("wb") as file:
            for line in self.lines(self._numbers if in_order else sorted(self._numbers, key=self._offsets.__getitem__)):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        ready.replace(self.output)
        self._part_file.unlink()
        self._is_whole = True

    def lines(self, numbers: Any) -> Iterator[bytes]:  # noqa: ANN401  (any order of numbers)
        """Yield written lines by their numbers."""
        self._file.flush()
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number in numbers:
                start = self._offsets[number]
                yield data[start : data.find(b"\n", start) + 1]

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._file.close()

    def _stored(self) -> _State | None:
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=_State)
        except FileNotFoundError:
            if not self.output.exists() and not self._part_file.exists():
                return None
            raise ConfigError(
                f"{self.output} exists, and was not begun by a run (there is no {self._state_file.name}): name another "
                "output, or replace it with --restart"
            ) from None
        except msgspec.DecodeError as error:
            raise ConfigError(f"{self._state_file} is damaged ({error}): begin anew with --restart") from error

    def _checked(self, stored: _State, begun: _State) -> _State:
        why = ""
        if (stored.sha256, stored.lines) != (begun.sha256, begun.lines):
            why = f"the input has changed since {self.output} was begun ({stored.lines} lines then, {begun.lines} now)"
        elif stored.options != begun.options:
            why = f"{self.output} was begun with other options (model, fields of the body, tiers, priority)"
        if why:
            raise ConfigError(f"{why}: name another output, or begin anew with --restart")
        return stored

    def _save(self) -> None:
        new = self._state_file.with_name(self._state_file.name + ".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(self._state) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._state_file)

    def _drop(self) -> None:
        """Remove what there is of the output, unless another run is writing it."""
        for path in (self._part_file, self.output, self._state_file):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                self._lock(file)
                path.unlink()

    def _lock(self, file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another run is writing {self.output} now") from None

    def _opened(self) -> IO[bytes]:
        """Open what there is of the output, and read it."""
        self._is_whole = self.output.exists() and not self._part_file.exists()
        with contextlib.ExitStack() as stack:
            file = stack.enter_context((self.output if self._is_whole else self._part_file).open("a+b"))
            self._lock(file)
            self._read(file)
            stack.pop_all()
        return file

    def _read(self, file: IO[bytes]) -> None:
        """Read the lines that were written, and leave the file at their end."""
        file.seek(0)
        offset = 0
        for line in file:
            if not line.endswith(b"\n"):  # it was killed while it wrote
                break
            try:
                self._take(line, offset)
            except (msgspec.DecodeError, ValueError, IndexError) as error:
                raise ConfigError(f"{file.name} is damaged at byte {offset} ({error}): see --restart") from error
            offset += len(line)
        file.truncate(offset)
        file.seek(0, os.SEEK_END)

    def _take(self, line: bytes, offset: int) -> str:
        number, attempt, reason = read_output_line(line, self._state.run)
        if reason not in self._kinds and len(self._kinds) > _MAX_KINDS:
            reason = "other"
        if reason not in self._kinds:
            self._kinds.append(reason)
        self.written += not self.is_written(number)
        self.failed += bool(reason) - bool(self._kind_of[number])
        self._offsets[number], self._attempts[number] = offset, attempt
        self._kind_of[number] = self._kinds.index(reason)
        return reason
