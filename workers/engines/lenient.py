"""JSON as engines write it: with bare NaN, halves of surrogate pairs, and bytes that are not UTF-8."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from workers.engines.errors import EngineCorruptedError

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def read(data: bytes) -> tuple[Any, bytes]:
    """Return the value of a JSON text, and the text itself in valid UTF-8.

    Raises:
        EngineCorruptedError: it would be JSON if JSON had NaN and infinity.
        ValueError: it is not JSON.

    """
    try:
        return _decode(data), data
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = data.decode("utf-8", "replace")
        return _read_non_standard(text), text.encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write(value: object) -> bytes:
    """Return a value as JSON."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return sound(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


def sound(text: str) -> str:
    """Return a text with the halves of surrogate pairs joined, and single halves replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _read_non_standard(text: str) -> Any:  # noqa: ANN401
    not_finite: list[str] = []

    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            not_finite.append(digits[:40])
        return number

    try:
        value = json.loads(text, parse_constant=not_finite.append, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not_finite:
        raise EngineCorruptedError(f"the engine's answer has {not_finite[0]} where a number belongs")
    return value
