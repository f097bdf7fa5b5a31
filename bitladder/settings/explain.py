"""What is wrong with a configuration, a line for each error: key, what is expected, value, where the value came from.

A value that may be a secret is never shown. Neither is that of an unknown key: it may be a password's, misspelt.
"""

from __future__ import annotations

import contextlib
import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bitladder.settings.hidden import hidden
from bitladder.settings.sections import Settings

# Keys that hold secrets, or that people write one to by mistake.
SECRET_KEYS = ("auth.key", "redis.url", "redis.pass", "queue.secret", "vllm.env")
_TABLES = {"dict_type": "table", "model_type": "table", "list_type": "list", "tuple_type": "list"}
# Stands for a name that an operator chose: of a model, a tier, an API key.
_ANY = "*"


def explain(error: ValidationError, tree: Mapping[str, Any], sources: Mapping[str, str], file: str) -> str:
    """Return the errors of a configuration; `sources` has where each key of the tree came from, `file` is its file."""
    items, lines = error.errors(include_url=False), []
    for item in items:
        if item["type"] == "too_short" and any(
            item["loc"] == other["loc"][: len(item["loc"])] for other in items if other is not item
        ):
            continue  # it has too few items because of the errors in them
        key, message = _explain(item, _dotted(item["loc"], tree))
        lines.append(f"{key}{message} ({_source(key, sources, file)})")
    return "\n".join(lines)


def _explain(item: ErrorDetails, key: str) -> tuple[str, str]:
    """Return the key that an error is about, and the rest of the line."""
    kind, message = item["type"], item["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return key, f" is not a setting{_did_you_mean(key)}; docs/configuration.md has all of them"
    if kind == "missing":
        return key, " is missing"
    if kind == "value_error":  # it has the value where that may be shown
        word, _, rest = message.partition(" ")
        inner = f"{key}.{word}".strip(".:")
        return (inner, f" {rest}") if inner in _known(inner) else (key, f": {message}" if key else message)
    if kind in _TABLES:
        message = f"must be a {_TABLES[kind]}" + (", written as in TOML" if isinstance(item["input"], str) else "")
    return key, f": {message}" if _is_secret(key) else f": {message}, got {hidden(item['input'])!r:.80}"


def _is_secret(key: str) -> bool:
    """Return whether a key's value may be a secret, or have one in it."""
    model_redis = key.partition(".redis.")[2] if key.startswith("models.") else ""
    key = f"redis.{model_redis}" if model_redis else key
    return any(key.startswith(secret) or secret.startswith(f"{key}.") for secret in SECRET_KEYS)


def _dotted(loc: Sequence[int | str], tree: object) -> str:
    """Return the dotted key of a place in the tree; tiers are named, not numbered."""
    parts: list[str] = []
    for part in loc:
        if part == "[key]":  # the name itself is wrong
            continue
        tree = _child(tree, part)
        name = tree.get("name") if isinstance(part, int) and isinstance(tree, dict) else None
        parts.append(str(part) if name is None else str(name))
    return ".".join(parts)


def _child(tree: object, part: int | str) -> object:
    if isinstance(tree, dict):
        return tree.get(part)
    if isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree):
        return tree[part]
    return None


def _source(key: str, sources: Mapping[str, str], file: str) -> str:
    """Return where a key came from: it, what it is a part of, or its own parts."""
    parts = key.split(".")
    parents = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    for parent in parents:
        if source := sources.get(parent):
            return f"from {source}{line_in(source, parent)}"
    for parent in parents[: max(1, len(parents) - 1)]:  # above a key, a whole section says nothing
        below = sorted({source for name, source in sources.items() if name.startswith(f"{parent}.")})
        if below:
            return f"from {' and '.join(below)}{line_in(below[0], parent) if len(below) == 1 else ''}"
    return f"in {file}"


def line_in(source: str, key: str) -> str:
    """Return in which line of a file a key is; '' where that is not known. Half of the lines are tried each time."""
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # it is no file
        return ""

    def has_key(end: int) -> bool:
        while end:
            with contextlib.suppress(tomllib.TOMLDecodeError):  # it ends within a value of several lines
                known = leaves(tomllib.loads("\n".join(lines[:end])))
                return any(f"{name}.".startswith(f"{key}.") for name, _ in known)
            end -= 1
        return False

    number = bisect_left(range(len(lines) + 1), True, key=has_key)
    return f", line {number}" if number <= len(lines) else ""


def leaves(node: object, prefix: str = "") -> list[tuple[str, object]]:
    """All dotted keys of a tree with their values; tiers are named, not numbered."""
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{prefix}{key}.")]
    if isinstance(node, list | tuple) and node and all(isinstance(item, dict) and "name" in item for item in node):
        return [leaf for item in node for leaf in leaves(item, f"{prefix}{item['name']}.")]
    return [(prefix.rstrip("."), node)]


def _did_you_mean(key: str) -> str:
    """Return a question with the setting that a key may stand for; '' where there is none like it."""
    known = _known(key)
    same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    close = get_close_matches(key, known, n=1, cutoff=0.8) or same[:1]
    return f" (did you mean {close[0]}?)" if close else ""


def did_you_mean_variable(name: str, prefix: str) -> str:
    """Return a question with the environment variable that a name may stand for; '' where there is none like it."""
    known = [prefix + key.upper().replace(".", "__") for key in _keys(Settings) if "." in key and _ANY not in key]
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _known(key: str) -> list[str]:
    """Return every section and every setting, below the names that a key has."""
    parts = _parts(key)
    return [name for pattern in _keys(Settings) if _ANY not in (name := _named(pattern.split("."), parts))]


def _parts(key: str) -> list[str]:
    """Return the parts of a dotted key; the names of a model and of a tier may have dots in them."""
    section, _, rest = key.partition(".")
    if section != "models" or not rest:
        return key.split(".")
    model, is_of_tier, below = rest.partition(".tiers.")
    if is_of_tier:
        return [section, model, "tiers", *below.rsplit(".", 1)]
    return [section, *rest.rsplit(".", 1)]


def _named(pattern: Sequence[str], parts: Sequence[str]) -> str:
    """Return a pattern with the names that a key has in their places."""
    return ".".join(parts[index] if part == _ANY and index < len(parts) else part for index, part in enumerate(pattern))


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Return every section and every setting."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if inner := _section_in(field.annotation):
            is_by_name = get_origin(field.annotation) in (dict, tuple)
            yield from _keys(inner, f"{prefix}{name}.{_ANY}." if is_by_name else f"{prefix}{name}.")


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for argument in get_args(annotation) if (inner := _section_in(argument))), None)
