"""Traces of real services: when requests came, and how long they and their answers were.

Azure's form is CSV with TIMESTAMP, ContextTokens and GeneratedTokens; Mooncake's is JSON lines with timestamp (ms),
input_length, output_length and, where it knows them, hash_ids of 512-token blocks, by which prompts share beginnings.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO, cast

import msgspec
from msgspec import Meta

from bitladder.errors import ConfigError

_MAX_LINE = 1_000_000
_MAX_DIGITS = 20
_GZIP = b"\x1f\x8b"
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class Arrival(msgspec.Struct, frozen=True):
    """One request of a trace."""

    due_s: float  # since the first one
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: Annotated[int, Meta(ge=0)]
    output_length: Annotated[int, Meta(ge=0)]
    hash_ids: list[int] = []


def read_trace(file: Path, speed: float, limit: int) -> list[Arrival]:
    """Return the first requests of a trace, `speed` times as fast as they came; packed by gzip or not.

    Raises:
        ConfigError: it has neither form; the line is named.

    """
    try:
        with file.open("rb") as raw:
            packed = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if raw.peek(2)[:2] == _GZIP else raw
            with io.TextIOWrapper(packed, "utf-8") as lines:
                arrivals = list(islice(_read(lines), limit))
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ConfigError(f"--trace {str(file)!r} cannot be read: {error}") from error
    except _WrongLineError as error:
        raise ConfigError(f"--trace {str(file)!r}: {error}") from error
    if not arrivals:
        raise ConfigError(f"--trace {str(file)!r} has no requests")
    arrivals.sort(key=lambda arrival: arrival.due_s)
    first = arrivals[0].due_s
    return [
        Arrival((arrival.due_s - first) / speed, arrival.input_tokens, arrival.output_tokens, arrival.blocks)
        for arrival in arrivals
    ]


class _WrongLineError(Exception):
    pass


def _read(lines: TextIO) -> Iterator[Arrival]:
    first = lines.readline(_MAX_LINE)
    if first.lstrip("\ufeff").lstrip().startswith("{"):
        yield from _mooncake([first])
        yield from _mooncake(_bounded(lines), 2)
        return
    columns = [name.strip(' "') for name in first.lstrip("\ufeff").strip().split(",")]
    if not set(_AZURE) <= set(columns):
        raise _WrongLineError(
            f"line 1: must have the columns {', '.join(_AZURE)}, or be JSON with timestamp, got {first[:80]!r}"
        )
    yield from _azure(csv.DictReader(_bounded(lines), columns))


def _bounded(lines: TextIO) -> Iterator[str]:
    while line := lines.readline(_MAX_LINE):
        yield line


def _mooncake(lines: Iterable[str], start: int = 1) -> Iterator[Arrival]:
    for number, line in enumerate(lines, start):
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=_Mooncake)
        except msgspec.MsgspecError as error:
            raise _WrongLineError(f"line {number}: {error}") from error
        yield Arrival(entry.timestamp / 1000, entry.input_length, entry.output_length, tuple(entry.hash_ids))


def _azure(rows: csv.DictReader[str]) -> Iterator[Arrival]:
    for row in rows:
        line = rows.line_num + 1
        moment, inputs, outputs = (row[name] or "" for name in _AZURE)
        for name, value in zip(_AZURE[1:], (inputs, outputs), strict=True):
            if not (value.strip().isdecimal() and len(value) < _MAX_DIGITS):
                raise _WrongLineError(f"line {line}: {name} must be a number of tokens, got {value[:80]!r}")
        try:
            # Python reads six digits behind the seconds, the trace has seven.
            seconds = datetime.fromisoformat(moment.strip()[:26]).timestamp()
        except (ValueError, OverflowError) as error:
            raise _WrongLineError(f"line {line}: {error}") from error
        yield Arrival(seconds, int(inputs), int(outputs))
