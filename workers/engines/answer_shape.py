"""Give an answer that was put together of a stream the fields that the engine writes in whole answers only. Pure.

Engines leave out of their chunks what they write as null in a whole answer. Which fields these are, and in which order
all stand, a whole answer of the same engine at the same route says.
"""

from __future__ import annotations

from typing import Any

import msgspec

from workers.engines import lenient

Shape = Any  # objects by field, lists of choices, empty lists; null for everything else


def shape_of(answer: bytes) -> Shape:
    """Return the fields of a whole answer."""
    return _shape(msgspec.json.decode(answer))


def shaped(answer: bytes, shape: Shape) -> bytes | None:
    """Return an answer with all fields of a shape; None where it has not what a whole one has to say."""
    if not answer or "usage" not in (fields := msgspec.json.decode(answer)):
        return None
    return lenient.write(_filled(fields, shape))


def _shape(value: Any) -> Shape:  # noqa: ANN401
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and "finish_reason" in value[0]:
            return [_shape(value[0])]
        return None if value else []  # what one client asked for is null to the others
    return None


def _filled(value: Any, shape: Shape) -> Any:  # noqa: ANN401
    if isinstance(value, dict) and isinstance(shape, dict):
        names = dict.fromkeys([*shape, *value])
        return {
            name: _filled(value[name], shape.get(name)) if name in value else (shape[name] if not shape[name] else None)
            for name in names
        }
    if isinstance(value, list) and isinstance(shape, list) and len(shape) == 1:
        return [_filled(item, shape[0]) for item in value]
    return value
