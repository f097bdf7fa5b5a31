"""Traces of real services: Azure's CSV, Mooncake's JSON lines, and recorded requests; packed by gzip or not.

A trace is refused where its times are negative or not in order: sorted in silence, it would be another trace.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import msgspec
import numpy as np

from bitladder.decision import Score
from bitladder.queue_name import Lane
from calibration.errors import InputError
from calibration.simulation.arrivals import MAX_REQUESTS, Arrivals

_MAX_LINE = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class _Request(msgspec.Struct, frozen=True):
    """A line of a recording."""

    at_s: float
    input_tokens: int
    output_tokens: int
    lane: Lane = Lane.NORMAL
    floor: str = ""
    score: Score | None = None


class _Mooncake(msgspec.Struct):
    timestamp: float  # ms
    input_length: int
    output_length: int


class _WrongLineError(ValueError):
    pass


def read_arrivals(file: Path, speed: float = 1.0, limit: int = MAX_REQUESTS) -> Arrivals:
    """Return a trace's first requests, `speed` times as fast as they came.

    Raises:
        InputError: it has none of the forms, or a line is wrong, which is named.

    """
    try:
        with file.open("rb") as raw:
            packed = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if file.suffix == ".gz" else raw
            with io.TextIOWrapper(packed, "utf-8-sig") as lines:
                requests = list(islice(_checked(_read(lines)), limit))
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"trace {str(file)!r} cannot be read: {error}") from error
    except _WrongLineError as error:
        raise InputError(f"trace {str(file)!r}, {error}") from error
    if not requests:
        raise InputError(f"trace {str(file)!r} has no requests")
    times = np.array([request.at_s for request in requests])
    return Arrivals(
        at_s=(times - times[0]) / speed,
        input_tokens=np.array([float(request.input_tokens) for request in requests]),
        output_tokens=np.array([float(request.output_tokens) for request in requests]),
        lanes=[request.lane for request in requests],
        floors=[request.floor for request in requests],
        scores=[request.score for request in requests],
    )


def _checked(requests: Iterator[tuple[int, _Request]]) -> Iterator[_Request]:
    before = 0.0
    for number, request in requests:
        if not 0 <= request.at_s < math.inf:
            raise _WrongLineError(f"line {number}: a time must be 0 or more, got {request.at_s:g} s")
        if request.at_s < before:
            raise _WrongLineError(f"line {number}: times must be in order, got one {before - request.at_s:g} s earlier")
        if request.input_tokens < 0 or request.output_tokens < 0:
            lengths = f"{request.input_tokens} and {request.output_tokens}"
            raise _WrongLineError(f"line {number}: tokens must be 0 or more, got {lengths}")
        before = request.at_s
        yield request


def _read(lines: TextIO) -> Iterator[tuple[int, _Request]]:
    first = lines.readline(_MAX_LINE)
    rest = iter(lambda: lines.readline(_MAX_LINE), "")
    if not first.lstrip().startswith("{"):
        columns = [name.strip() for name in first.split(",")]
        if not set(_AZURE) <= set(columns):
            raise _WrongLineError(
                f"line 1: must have the columns {', '.join(_AZURE)}, or be JSON with timestamp or at_s, "
                f"got {first[:80]!r}"
            )
        yield from _azure(csv.DictReader(rest, columns))
        return
    parse = _mooncake if '"timestamp"' in first else _recorded
    for number, line in enumerate(chain([first], rest), 1):
        if line.strip():
            yield number, _parsed(parse, line, number)


def _parsed(parse: Callable[[str], _Request], line: str, number: int) -> _Request:
    try:
        return parse(line)
    except msgspec.MsgspecError as error:
        raise _WrongLineError(f"line {number}: {error}") from error


def _recorded(line: str) -> _Request:
    return msgspec.json.decode(line, type=_Request)


def _mooncake(line: str) -> _Request:
    entry = msgspec.json.decode(line, type=_Mooncake)
    return _Request(entry.timestamp / 1000, entry.input_length, entry.output_length)


def _azure(rows: csv.DictReader[str]) -> Iterator[tuple[int, _Request]]:
    for row in rows:
        number = rows.line_num + 1
        try:
            moment, inputs, outputs = (row[name] for name in _AZURE)
            # Python reads six digits behind the seconds, the trace has seven.
            at = datetime.fromisoformat(moment.strip()[:26])
            yield number, _Request((at.replace(tzinfo=UTC) - _EPOCH).total_seconds(), int(inputs), int(outputs))
        except (TypeError, AttributeError) as error:
            raise _WrongLineError(f"line {number}: must have {len(_AZURE)} columns") from error
        except ValueError as error:
            raise _WrongLineError(f"line {number}: {error}") from error
