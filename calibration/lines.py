"""A line of a JSONL file of texts: an object with "text", or "prompt", and whatever else."""

from __future__ import annotations

import json
from typing import Any

from calibration.errors import InputError


def read_line(line: str | bytes, where: str) -> tuple[str, dict[str, Any]]:  # Any: JSON
    """Return the text of a line, and all its fields; `where` names the line in errors.

    Raises:
        InputError: it is no JSON object, or has no text.

    """
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    text = fields.get("text", fields.get("prompt")) if isinstance(fields, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{where}: expected an object with a "text" (or "prompt"), got {line[:80]!r}')
    return text, fields
