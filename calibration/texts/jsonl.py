"""Read JSONL files of users: their lines, and the text of a line: an object with "text" or "prompt"."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from calibration.errors import InputError
from calibration.texts.decoding import DecodedText

T = TypeVar("T")
# Characters of a line: more than any task, text or sample is long.
MAX_CHARS = 8_000_000


def read_lines(path: Path, what: str, read: Callable[[str, str], T]) -> list[T]:
    """Return what `read` makes of every line that is not blank, given the line and where it stands.

    Raises:
        InputError: the file cannot be read or has no line; `what` names what should be in it, in the singular.

    """
    try:
        with path.open("rb") as stream:
            items = [read(line, where) for line, where in _lines(DecodedText(stream), str(path))]
    except OSError as error:
        raise InputError(f"cannot read {what}s {str(path)!r}: {error.strerror or error}") from error
    if not items:
        raise InputError(f"there is no {what} in {str(path)!r}")
    return items


def _lines(text: DecodedText, name: str) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not blank, and where they stand; they end as JSON allows: LF, CRLF or CR."""
    # splitlines() would end lines within texts, at U+2028.
    ends = io.IncrementalNewlineDecoder(None, translate=True)
    number, rest = 1, ""
    for chunk in text:
        *whole, rest = (rest + ends.decode(chunk)).split("\n")
        for line in whole:
            if line.strip():
                yield _checked(line, f"{name}:{number}"), f"{name}:{number}"
            number += 1
        _checked(rest, f"{name}:{number}")
    if text.foreign or text.fault:
        raise InputError(f"{name}: {text.foreign or text.fault}, expected lines of JSON, in gzip or not")
    if rest.strip():
        yield rest, f"{name}:{number}"


def _checked(line: str, where: str) -> str:
    if len(line) > MAX_CHARS:
        raise InputError(f"{where}: more than {MAX_CHARS:,} characters in one line: split it")
    if not line.isascii() and (bad := next((char for char in line if "\udc80" <= char <= "\udcff"), None)):
        raise InputError(f"{where}: byte {ord(bad) - 0xDC00:#x} is no UTF-8")
    return line


def read_line(line: str, where: str) -> tuple[str, dict[str, Any]]:  # Any: JSON
    """Return the text of a line, and all its fields; `where` names the line in errors.

    Raises:
        InputError: it is no JSON object, or has no text.

    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    values = [fields.get("text"), fields.get("prompt")] if isinstance(fields, dict) else []
    text = next((value for value in values if isinstance(value, str) and value.strip()), None)
    if text is None:
        raise InputError(f'{where}: expected an object with a "text" (or "prompt"), got {line[:80]!r}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half a surrogate pair at character {error.start}: it is no text") from error
    return text, fields
