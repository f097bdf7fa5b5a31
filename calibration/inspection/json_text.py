"""JSON of a checkpoint, read as strictly as those read it that serve it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Pairs = list[tuple[str, Any]]  # Any: JSON


def parse_json(content: bytes, hook: Callable[[Pairs], dict[str, Any]] = dict) -> Any:  # noqa: ANN401  (JSON)
    """Return what the text says; `hook` makes an object of its pairs.

    Raises:
        ValueError: it is no JSON in UTF-8, or nested too deeply to be read.

    """
    try:
        return json.loads(content.decode(), object_pairs_hook=hook)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
