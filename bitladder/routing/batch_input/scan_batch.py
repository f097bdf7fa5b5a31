"""Check a whole file of batch input before anything of it runs, as its bytes pass by."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from bitladder.routing.batch_input.line_forms import BadLineError, BatchLine, read_line
from bitladder.routing.batch_input.line_index import IndexBuilder, Row
from bitladder.routing.batch_input.split_lines import LineSplitter, RawLine

# Errors that are kept; of a file in another form, each line has one.
MAX_ERRORS = 100
_SHOWN_CHARS = 80


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a file, in the form of OpenAI's batch object."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Rules(NamedTuple):
    """What a file must keep to."""

    endpoint: str  # the `url` of all lines
    is_model: Callable[[str], bool]
    max_lines: int = 50_000
    max_line_bytes: int = 1_048_576


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """What a file has."""

    lines: int
    models: list[str]  # that its lines name
    index: bytes  # see line_index.py; it is of use where there are no errors
    errors: list[BatchError]  # the first ones, in the order of the file
    wrong: int  # errors there were


class BatchScan:
    """The check of one file: feed it all bytes, then end it. In memory are a line, and some 150 bytes for each line."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._splitter = LineSplitter(rules.max_line_bytes)
        self._index = IndexBuilder()
        self._lines = 0
        # Two different ids with the same 64 bits are met once in some ten thousand million files.
        self._first_lines: dict[int, int] = {}
        self._models: set[str] = set()
        self._errors: list[BatchError] = []
        self._wrong = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        for line in self._splitter.feed(data):
            self._take(line)

    def end(self) -> Scanned:
        """Return the result; there are no more bytes."""
        for line in self._splitter.end():
            self._take(line)
        if not self._lines:
            self._refuse(BadLineError("empty_batch", "the file has no lines"))
        if self._lines > self._rules.max_lines:
            limit = self._rules.max_lines
            self._refuse(BadLineError("too_many_tasks", f"the file may have {limit} lines at most, got {self._lines}"))
        index = b"" if self._wrong else self._index.encode()
        return Scanned(
            lines=self._lines, models=sorted(self._models), index=index, errors=self._errors, wrong=self._wrong
        )

    def _take(self, raw: RawLine) -> None:
        self._lines += 1
        if self._lines > self._rules.max_lines:
            return  # it is only counted
        try:
            line = self._read(raw)
            self._check(line, raw.number)
        except BadLineError as error:
            self._refuse(error, raw.number)
            return
        self._models.add(line.model)
        self._index.add(Row(raw.offset, raw.length, raw.number), line.prefix)

    def _read(self, raw: RawLine) -> BatchLine:
        if raw.data is None:
            limit = self._rules.max_line_bytes
            raise BadLineError("request_too_large", f"a line may have {limit} bytes at most, got {raw.length}")
        return read_line(raw.data)

    def _check(self, line: BatchLine, number: int) -> None:
        first = self._first_lines.setdefault(hash(line.custom_id), number)
        if first != number:
            raise BadLineError(
                "duplicate_custom_id",
                f"custom_id {line.custom_id[:_SHOWN_CHARS]!r} must be unique, and line {first} has it, too",
                "custom_id",
            )
        if line.url != self._rules.endpoint:
            raise BadLineError(
                "url_mismatch",
                f"url must be '{self._rules.endpoint}' on every line, got {line.url[:_SHOWN_CHARS]!r}",
                "url",
            )
        if line.model not in self._models and not self._rules.is_model(line.model):
            raise BadLineError("model_not_found", f"there is no model {line.model[:_SHOWN_CHARS]!r} here", "body.model")

    def _refuse(self, error: BadLineError, line: int | None = None) -> None:
        self._wrong += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(BatchError(code=error.code, message=str(error), line=line, param=error.param))
