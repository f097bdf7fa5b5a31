"""One JSON value of a log -> the prompts in it, or why there are none. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from bitladder.routing.envelope import Envelope

# A log that names more tiers than a ladder can have is not a log of ours; groups are as short.
_NAME_CHARS = 40


class Prompt(msgspec.Struct, frozen=True):
    """One prompt, and what its log knows about it."""

    text: str
    turns: int = 1  # of a conversation
    tier: str = ""  # that served it; '' where the log does not say
    envelope: Envelope = Envelope()  # what was asked for, as far as the log says it
    group: str = ""  # the value of the field that records are grouped by; '' where a record has none
    split: str = ""  # set for packaged texts only: where it belongs
    is_chat: bool = False  # it came as messages


class BadEntry(msgspec.Struct, frozen=True):
    """An entry of a log that is no prompt."""

    reason: str


def read_prompts(value: Any, group_field: str = "") -> list[Prompt | BadEntry]:  # noqa: ANN401  (untrusted JSON)
    """Read one JSON value: an object with `prompt`, `messages` or `text`, or a list of such objects.

    `group_field` names the field whose value is the group of a record; dots lead into objects: metadata.route.
    """
    entries = value if isinstance(value, list) else [value]
    return [prompt for entry in entries for prompt in _read_entry(entry, group_field)]


def _read_entry(entry: Any, group_field: str) -> list[Prompt | BadEntry]:  # noqa: ANN401  (untrusted JSON)
    if not isinstance(entry, dict):
        return [BadEntry("not an object")]
    tier = entry.get("tier")
    tier = tier[:_NAME_CHARS] if isinstance(tier, str) else ""
    texts, turns = _texts(entry)
    is_chat, turns = turns > 0, max(1, turns)
    if texts is None:
        return [BadEntry("no prompt, messages or text")]
    envelope, group = _envelope(entry), group_of(entry, group_field)
    return [_checked(text, Prompt(text, turns, tier, envelope, group, is_chat=is_chat)) for text in texts] or [
        BadEntry("empty")
    ]


def group_of(entry: dict[str, Any], field: str) -> str:  # Any: JSON
    """Return the value of the field: a text, a number or a truth value; '' for anything else."""
    if not field:
        return ""
    value: Any = entry.get(field)  # a name with dots may be the field's own
    if value is None:
        value = entry
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    return str(value)[:_NAME_CHARS] if isinstance(value, str | int | float) else ""


def _envelope(entry: dict[str, Any]) -> Envelope:  # Any: JSON
    """Return the request constraints in a log; invalid ones are ignored."""
    asked = {name: entry[name] for name in ("priority", "max_latency_ms") if name in entry}
    try:
        return msgspec.convert(asked, Envelope)
    except msgspec.ValidationError:
        return Envelope()


def _texts(entry: dict[str, Any]) -> tuple[list[Any] | None, int]:  # Any: JSON
    """Return the texts of the first field that has any, else what there is instead, None where there is no field.

    And how many messages they were; 0: they are no messages.
    """
    fields: list[tuple[list[Any], int]] = []
    messages = entry.get("messages")
    if isinstance(messages, list):
        parts = [part for message in messages for part in _contents(message)]
        fields.append((["\n".join(parts)], len(messages)))
    for name in ("prompt", "text"):
        if (value := entry.get(name)) is not None:
            fields.append((value if isinstance(value, list) else [value], 0))
    with_text = (field for field in fields if any(isinstance(text, str) and text.strip() for text in field[0]))
    return next(with_text, fields[0] if fields else (None, 0))


def _contents(message: Any) -> list[str]:  # noqa: ANN401  (untrusted JSON)
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [content]
    parts = [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return [text for text in parts if isinstance(text, str)]


def _checked(text: Any, prompt: Prompt) -> Prompt | BadEntry:  # noqa: ANN401  (untrusted JSON)
    if not isinstance(text, str):
        return BadEntry("prompt is no text")
    return prompt if text.strip() else BadEntry("empty")
