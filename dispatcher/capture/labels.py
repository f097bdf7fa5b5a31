"""The labels that a client gave its request: `metadata`, as OpenAI has it, a few short names and values. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from dispatcher.capture.redact import redact

# OpenAI's own limits of pairs and names; of a value as much as `calibrate sample --group` reads.
_MAX_LABELS, _NAME_CHARS, _VALUE_CHARS = 16, 64, 40
# A value is redacted before it is cut, so that no key is cut in two and missed; none that is longer is a label.
_LONGEST_VALUE = 512


class _Labelled(msgspec.Struct, frozen=True):
    metadata: Any = None  # Any: nobody has checked it


_decode = msgspec.json.Decoder(_Labelled).decode


def labels(body: bytes) -> dict[str, str | bool]:
    """Return the labels in the body of an accepted request: texts and numbers, redacted and cut, and truth values."""
    metadata = _decode(body).metadata
    if not isinstance(metadata, dict):
        return {}
    named = {name: _label(value) for name, value in metadata.items() if _is_name(name)}
    kept = [(name, value) for name, value in named.items() if value is not None]
    return dict(kept[:_MAX_LABELS])


def _is_name(name: str) -> bool:
    return len(name) <= _NAME_CHARS and redact(name) == name


def _label(value: object) -> str | bool | None:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float) or len(text := str(value)) > _LONGEST_VALUE:
        return None
    return redact(text)[:_VALUE_CHARS]  # a number too: it may be a card's
