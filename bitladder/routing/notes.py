"""What a client notes on its job: OpenAI's `metadata` of the body, and tags in a header. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from bitladder.contract import Labels
from bitladder.endpoints import Errors
from bitladder.errors import RequestError
from bitladder.routing.body import Body

# OpenAI's rule.
MAX_PAIRS, MAX_NAME_CHARS, MAX_VALUE_CHARS = 16, 64, 512
MAX_TAGS, MAX_TAG_CHARS = 16, 64


def labels_of(body: Body, tags: str | None) -> str:
    """Return what is kept with the job, as JSON; '' where there is nothing.

    Raises:
        RequestError: there is too much of it, or it is no text.

    """
    if body.metadata is None and not tags:
        return ""
    labels = Labels(metadata=_metadata(body), tags=_tags(tags or ""))
    return msgspec.json.encode(labels).decode() if labels.metadata or labels.tags else ""


def _metadata(body: Body) -> dict[str, str]:
    metadata = body.metadata
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise RequestError("metadata must be an object of names and texts", param="metadata")
    if body.endpoint.row.errors is Errors.ANTHROPIC:  # its `user_id` may be null
        metadata = {name: value for name, value in metadata.items() if value is not None}
    if len(metadata) > MAX_PAIRS:
        raise RequestError(f"metadata must have at most {MAX_PAIRS} pairs, got {len(metadata)}", param="metadata")
    return {_name(name): _value(name, value) for name, value in metadata.items()}


def _name(name: str) -> str:
    if len(name) > MAX_NAME_CHARS:
        raise RequestError(
            f"a name in metadata must have at most {MAX_NAME_CHARS} characters, got {len(name)}: {name[:40]!r}",
            param="metadata",
        )
    return name


def _value(name: str, value: Any) -> str:  # noqa: ANN401  (whatever the client sent)
    """Return a value as text: numbers and truth values are taken for theirs."""
    text = json.dumps(value) if isinstance(value, bool | int | float) else value
    if not isinstance(text, str):
        raise RequestError(f"metadata.{name} must be a text, got {type(value).__name__}", param=f"metadata.{name}")
    if len(text) > MAX_VALUE_CHARS:
        raise RequestError(
            f"metadata.{name} must have at most {MAX_VALUE_CHARS} characters, got {len(text)}",
            param=f"metadata.{name}",
        )
    return text


def _tags(header: str) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(tag.strip() for tag in header.split(",") if tag.strip()))
    if len(tags) > MAX_TAGS:
        raise RequestError(f"X-Tags must have at most {MAX_TAGS} tags, got {len(tags)}", param="X-Tags")
    for tag in tags:
        if len(tag) > MAX_TAG_CHARS or not (tag.isascii() and tag.isprintable()):
            raise RequestError(
                f"a tag must have at most {MAX_TAG_CHARS} printable ASCII characters, got {tag[:40]!r}", param="X-Tags"
            )
    return tags
