"""JSONL files that people write: their lines, and a line of texts: an object with "text", or "prompt"."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from calibration.errors import InputError

T = TypeVar("T")


def read_lines(path: Path, what: str, read: Callable[[str, str], T]) -> list[T]:
    """Return what `read` makes of every line that is not blank, given the line and where it stands.

    Raises:
        InputError: the file cannot be read or has no line; `what` names what should be in it, in the singular.

    """
    try:
        # splitlines() would end lines within texts, at U+2028.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {what}s {str(path)!r}: {error}") from error
    found = [read(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"there is no {what} in {str(path)!r}")
    return found


def read_line(line: str | bytes, where: str) -> tuple[str, dict[str, Any]]:  # Any: JSON
    """Return the text of a line, and all its fields; `where` names the line in errors.

    Raises:
        InputError: it is no JSON object, or has no text.

    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    text = None
    if isinstance(fields, dict):
        text = fields.get("prompt") if fields.get("text") is None else fields["text"]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{where}: expected an object with a "text" (or "prompt"), got {line[:80]!r}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half a surrogate pair at character {error.start}: it is no text") from error
    return text, fields
