"""JSON as engines write it: NaN as a bare word, halves of surrogate pairs, bytes that are no UTF-8."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from workers.engines.errors import EngineCorruptedError

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def read(data: bytes) -> tuple[Any, bytes]:
    """Return what a text says, and the text itself, in UTF-8 whatever it was.

    Raises:
        EngineCorruptedError: it would be JSON, if NaN and infinity were numbers.
        ValueError: it is no JSON.

    """
    try:
        return _decode(data), data
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = data.decode("utf-8", "replace")
        return _read_oddly(text), text.encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write(value: object) -> bytes:
    """Return a value as JSON."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return sound(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


def sound(text: str) -> str:
    """Return a text with the halves of surrogate pairs joined where both are there, and replaced where not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _read_oddly(text: str) -> Any:  # noqa: ANN401
    odd: list[str] = []

    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            odd.append(digits[:40])
        return number

    try:
        value = json.loads(text, parse_constant=odd.append, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if odd:
        raise EngineCorruptedError(f"the engine's answer has {odd[0]} where a number belongs")
    return value
