"""The input of a run: a file, plain or of gzip, or standard input. First it is checked as a whole, then it is run."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np

from bitladder.errors import ConfigError
from bitladder.routing.batch_input.line_forms import BadLineError, BatchLine, read_line, read_plain_line
from bitladder.routing.batch_input.split_lines import LineSplitter, RawLine

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
# Errors of a file that are shown.
MAX_ERRORS = 20

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Checked(NamedTuple):
    """What a whole file is."""

    numbers: array[int]  # of the lines that have a request
    sha256: str


class InputFile:
    """The requests of a file, one a line, with fields of a body that hold where a line does not set them."""

    def __init__(self, name: str, fields: Mapping[str, Any], max_line_bytes: int) -> None:
        """Open it; standard input ('-') is copied to a file first, as it is read twice."""
        self.name, self._fields, self._max_line_bytes = name, fields, max_line_bytes
        opened = tempfile.TemporaryFile if name == "-" else Path(name).open
        self._file: IO[bytes] = opened("w+b" if name == "-" else "rb")
        if name == "-":
            shutil.copyfileobj(sys.stdin.buffer, self._file)

    def close(self) -> None:
        self._file.close()

    def check(self) -> Checked:
        """Read all of it before anything runs.

        Raises:
            ConfigError: lines are wrong; it names the first ones.

        """
        digest, numbers, ids = hashlib.sha256(), array("Q"), array("q")
        errors: list[tuple[int, str]] = []
        for raw in self._lines(digest):
            try:
                ids.append(hash(self._read(raw).custom_id))
                numbers.append(raw.number)
            except BadLineError as error:
                errors.append((raw.number, f"{error.param}: {error}" if error.param else str(error)))
        errors += self._duplicates(numbers, ids) if not errors else []
        if errors or not numbers:
            shown = [f"line {number}: {error}" for number, error in errors[:MAX_ERRORS]] or ["it has no lines"]
            more = [f"and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
            raise ConfigError("\n  ".join([f"{self.name} cannot run, and nothing of it was submitted:", *shown, *more]))
        return Checked(numbers, digest.hexdigest())

    def read(self) -> Iterator[tuple[int, BatchLine]]:
        """Yield each line with its number, from the file's beginning; for a file that was checked."""
        for raw in self._lines():
            yield raw.number, self._read(raw)

    def _lines(self, digest: Any = None) -> Iterator[RawLine]:  # noqa: ANN401  (hashlib's are untyped)
        self._file.seek(0)
        is_packed = self._file.read(2) == _GZIP
        self._file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=self._file) if is_packed else self._file
        splitter = LineSplitter(self._max_line_bytes)
        try:
            while data := stream.read(_CHUNK):
                if digest is not None:
                    digest.update(data)
                yield from splitter.feed(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ConfigError(f"{self.name} begins like a gzip file, and is none: {error}") from error
        yield from splitter.end()

    def _read(self, raw: RawLine) -> BatchLine:
        if raw.data is None:
            limit = self._max_line_bytes
            raise BadLineError("request_too_large", f"a line may have {limit} bytes at most, got {raw.length}")
        try:
            fields = _fields(raw.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = {}
        if "body" not in fields:
            return read_plain_line(raw.data, raw.number, self._fields)
        return read_line(self._with_fields(raw.data, fields))

    def _with_fields(self, line: bytes, fields: dict[str, msgspec.Raw]) -> bytes:
        """Return a line in OpenAI's form with the fields that its body lacks."""
        try:
            body = _fields(fields["body"])
        except (msgspec.DecodeError, RecursionError):
            return line  # what is wrong with it is said by who reads it
        if lacking := {name: value for name, value in self._fields.items() if name not in body}:
            return msgspec.json.encode(fields | {"body": body | lacking})
        return line

    def _duplicates(self, numbers: array[int], ids: array[int]) -> list[tuple[int, str]]:
        """Return the lines whose custom_id an earlier line has; ids are compared by 64 bits of their hash."""
        values, first, counts = np.unique(np.array(ids, np.int64), return_index=True, return_counts=True)
        if not (counts > 1).any():
            return []
        firsts = dict(zip(values[counts > 1].tolist(), first[counts > 1].tolist(), strict=True))
        return [
            (numbers[place], f"custom_id: it must be unique, and line {numbers[firsts[value]]} has it, too")
            for place, value in enumerate(ids)
            if firsts.get(value, place) != place
        ]
