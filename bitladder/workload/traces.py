"""Traces of requests: when they came, how long they and their answers were, what was asked for. One reader for all.

Azure's form is CSV with TIMESTAMP, ContextTokens and GeneratedTokens; Mooncake's is JSON lines with timestamp (ms),
input_length, output_length and, where it knows them, hash_ids of 512-token blocks, by which prompts share beginnings; a
recording is JSON lines with the fields of `TraceRequest`. Packed by gzip or not. A trace whose times are negative, or
not in order, is refused: sorted in silence, it would be another trace.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import msgspec

from bitladder.decision import Score
from bitladder.errors import ConfigError
from bitladder.queue_name import Lane

_MAX_LINE = 1_000_000
_MAX_S, _MAX_TOKENS = 1e11, 100_000_000
_MAX_SHOWN = 80
_GZIP = b"\x1f\x8b"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class TraceRequest(msgspec.Struct, frozen=True, gc=False):
    """One request; a recording has a line of these fields for each, the first three at least."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()  # of 512 tokens: prompts with the same first ones begin alike
    lane: Lane = Lane.NORMAL
    floor: str = ""
    ceiling: str = ""
    only: tuple[str, ...] = ()  # the only tiers that may serve it
    below_floor: bool = False  # whether it may be served below its floor where all above is full
    deadline_s: float | None = None  # from its coming
    tenant: str = ""
    score: Score | None = None  # features of its prompt


class _Mooncake(msgspec.Struct):
    timestamp: float  # ms
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


class _WrongLineError(ValueError):
    pass


def read_trace(
    file: Path, *, speed: float = 1.0, limit: int | None = None, sort: bool = False
) -> Iterator[TraceRequest]:
    """Yield a trace's first requests, `speed` times as fast as they came; the first one comes at 0.

    Raises:
        ConfigError: it has none of the forms, or a line is wrong, which is named.

    """
    first_s: float | None = None
    try:
        with file.open("rb") as raw:
            packed = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if raw.peek(2)[:2] == _GZIP else raw
            with io.TextIOWrapper(packed, "utf-8-sig") as lines:
                requests = islice(_checked(_read(lines), sort=sort), limit)
                for request in sorted(requests, key=lambda request: request.at_s) if sort else requests:
                    first_s = request.at_s if first_s is None else first_s
                    yield msgspec.structs.replace(request, at_s=(request.at_s - first_s) / speed)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ConfigError(f"trace {str(file)!r} cannot be read: {error}") from error
    except _WrongLineError as error:
        raise ConfigError(f"trace {str(file)!r}, {error}") from error
    if first_s is None:
        raise ConfigError(f"trace {str(file)!r} has no requests")


def _checked(requests: Iterator[tuple[int, TraceRequest]], *, sort: bool) -> Iterator[TraceRequest]:
    before = 0.0
    for number, request in requests:
        if not 0 <= request.at_s < _MAX_S:
            raise _WrongLineError(f"line {number}: a time must be 0 or more, and below 1e11 s, got {request.at_s:g} s")
        if request.at_s < before and not sort:
            raise _WrongLineError(
                f"line {number}: times must be in order, got one {before - request.at_s:g} s earlier; --sort sorts them"
            )
        if wrong := _fault(request):
            raise _WrongLineError(f"line {number}: {wrong}")
        before = request.at_s
        yield request


def _fault(request: TraceRequest) -> str:
    lengths = (request.input_tokens, request.output_tokens)
    if not all(0 <= tokens <= _MAX_TOKENS for tokens in lengths):
        return f"tokens must be 0 to {_MAX_TOKENS:,}, got {lengths[0]} and {lengths[1]}"
    if request.deadline_s is not None and not 0 < request.deadline_s < _MAX_S:
        return f"deadline_s must be above 0, got {request.deadline_s:g}"
    return ""


def _read(lines: TextIO) -> Iterator[tuple[int, TraceRequest]]:
    first = lines.readline(_MAX_LINE)
    rest = iter(lambda: lines.readline(_MAX_LINE), "")
    if not first:
        return
    if not first.lstrip().startswith("{"):
        columns = [name.strip(' "') for name in first.strip().split(",")]
        if not set(_AZURE) <= set(columns):
            raise _WrongLineError(
                f"line 1: must have the columns {', '.join(_AZURE)}, or be JSON with timestamp or at_s, "
                f"got {first[:_MAX_SHOWN]!r}"
            )
        yield from _azure(csv.DictReader(rest, columns))
        return
    parse = _mooncake if '"timestamp"' in first else _recorded
    for number, line in enumerate(chain([first], rest), 1):
        if line.strip():
            yield number, _parsed(parse, line, number)


def _parsed(parse: Callable[[str], TraceRequest], line: str, number: int) -> TraceRequest:
    try:
        return parse(line)
    except (msgspec.MsgspecError, RecursionError) as error:  # nested deeply
        raise _WrongLineError(f"line {number}: {error}") from error


def _recorded(line: str) -> TraceRequest:
    return msgspec.json.decode(line, type=TraceRequest)


def _mooncake(line: str) -> TraceRequest:
    entry = msgspec.json.decode(line, type=_Mooncake)
    return TraceRequest(entry.timestamp / 1000, entry.input_length, entry.output_length, entry.hash_ids)


def _azure(rows: csv.DictReader[str]) -> Iterator[tuple[int, TraceRequest]]:
    try:
        for row in rows:
            yield rows.line_num + 1, _azure_request(row, rows.line_num + 1)
    except csv.Error as error:
        raise _WrongLineError(f"line {rows.line_num + 1}: {error}") from error


def _azure_request(row: dict[str, str], line: int) -> TraceRequest:
    moment, inputs, outputs = (row[name] or "" for name in _AZURE)
    for name, value in zip(_AZURE[1:], (inputs, outputs), strict=True):
        if not (value.strip().isdecimal() and len(value) < _MAX_SHOWN):
            raise _WrongLineError(f"line {line}: {name} must be a number of tokens, got {value[:_MAX_SHOWN]!r}")
    try:
        # Python reads six digits behind the seconds, the trace has seven.
        at = datetime.fromisoformat(moment.strip()[:26])
    except ValueError as error:
        raise _WrongLineError(f"line {line}: {error}") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return TraceRequest((at - _EPOCH).total_seconds(), int(inputs), int(outputs))
