"""Settings that operators change while all processes run: which, and how they are put over the other sources.

They are kept in Redis as one document, and stand over the configuration, the published release, variables and flags:
an order that is given to a running system takes effect. Nothing here names a file: what is in Redis opens none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec
from pydantic import ValidationError

from bitladder.errors import ConfigError
from bitladder.settings.explain import explain, leaves
from bitladder.settings.load import Loaded
from bitladder.settings.sections import Settings

_SECTIONS = {
    "policy": ("name", "entropy_bits", "top_priority", "top_latency_ms"),
    "lanes": ("urgent_from", "batch_to", "overflow", "eager"),
    "queue": ("max_depth", "max_total", "max_per_tenant", "fair_depth", "max_wait_s", "max_memory_share"),
    "intake": ("admission",),
    "auth": ("max_in_flight",),
}
_POLICY = ("kind", "rules", "otherwise", "version", "limit", "shares", "drawn_by")  # not `file`: see above
_KEY = ("weight", "requests_per_minute", "max_in_flight", "max_queued", "budget_per_day", "policy")
_MODEL = ("policy", "max_overflow_cost_per_hour", "canary")
_TIER = (
    *("slots", "price_per_hour", "high", "low", "high_age_s", "low_age_s", "high_wait_s", "low_wait_s"),
    *("eager", "reserve"),
)
# What begins with one of these ends with the name of one of its settings; in between are names of the configuration's.
_NAMED = {"policies.": _POLICY, "auth.keys.": _KEY, "models.": (*_MODEL, *_TIER)}


# Seconds since 1970; what stands in Redis may be anything, and must have a date.
Timestamp = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class LiveValue(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that was changed, by whom, when and why."""

    value: Any
    author: str = msgspec.field(name="by")
    at: Timestamp
    reason: str = ""
    revision: int
    until: Timestamp | None = None  # from then on what was set before counts again; None: until it is unset
    former: LiveValue | None = None  # with `until`: what was set before


class LiveDocument(msgspec.Struct, frozen=True, kw_only=True):
    """All settings that are changed; each change makes a new revision of it."""

    revision: int = 0
    values: dict[str, LiveValue] = {}


NO_LIVE = LiveDocument()
# Of a document: where a setting is, a table and a name in it.
_Places = dict[str, tuple[dict[str, Any], str]]


def places(tree: dict[str, Any]) -> _Places:
    """Return where each setting is that may be changed."""
    return {f"{prefix}{name}": (table, name) for prefix, table, names in _tables(tree) for name in names}


def _tables(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    for section, names in _SECTIONS.items():
        yield f"{section}.", tree[section], names
    for name, policy in tree["policies"].items():
        yield f"policies.{name}.", policy, _POLICY
    for name, key in tree["auth"]["keys"].items():
        yield f"auth.keys.{name}.", key, _KEY
    for name, model in tree["models"].items():
        yield f"models.{name}.", model, _MODEL
        for tier in model["tiers"]:
            yield f"models.{name}.tiers.{tier['name']}.", tier, _TIER


def not_ended(document: LiveDocument, now: float) -> LiveDocument:
    """Return the document without the values whose time is over."""
    held = {key: _at(now, entry) for key, entry in document.values.items()}
    if held == document.values:
        return document
    return msgspec.structs.replace(document, values={key: entry for key, entry in held.items() if entry})


def _at(now: float, entry: LiveValue | None) -> LiveValue | None:
    """Return what counts of a value and those before it."""
    while entry and entry.until is not None and entry.until <= now:
        entry = entry.former
    return entry


def with_live(loaded: Loaded, document: LiveDocument) -> Loaded:
    """Return the settings with those over them that were changed.

    One of a model, tier, policy or API key that the configuration has no more is left out: a key that was revoked, say.

    Raises:
        ConfigError: together they are wrong, or one may not be changed so.

    """
    if not document.values:
        return loaded
    tree, sources = loaded.settings.model_dump(), dict(loaded.sources)
    for key in document.values:
        if key.startswith("policies.") and key.endswith(".kind"):
            tree["policies"].setdefault(key[len("policies.") : -len(".kind")], {})
    known = places(tree)
    for key, entry in document.values.items():
        if key in known:
            table, name = known[key]
            table[name] = entry.value
            until = "" if entry.until is None else f", until {in_words(entry.until)}"
            source = f"live settings, revision {entry.revision}, by {entry.author}{until}"
            sources |= {leaf: source for leaf, _ in leaves(entry.value, f"{key}.")} | {key: source}
        elif not _is_of_a_name(key):
            raise ConfigError(f"{key} may not be changed while the system runs (live settings {document.revision})")
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, tree, sources, str(loaded.config_file))) from None
    _check_numbers(document, settings, sources)
    return loaded.model_copy(update={"settings": settings, "sources": sources})


def _check_numbers(document: LiveDocument, settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise ConfigError where a number was set to true or false, which would count as 1 or 0."""
    for key, (table, name) in places(settings.model_dump()).items():
        entry = document.values.get(key)
        if entry and isinstance(entry.value, bool) and not isinstance(table[name], bool):
            raise ConfigError(f"{key} must be a number, not {str(entry.value).lower()} (from {sources[key]})")


def without_effect(loaded: Loaded, document: LiveDocument) -> list[str]:
    """Return which changed settings are of something that the configuration has not."""
    tree = with_live(loaded, document).settings.model_dump()
    return sorted(document.values.keys() - places(tree).keys())


def _is_of_a_name(key: str) -> bool:
    """Return whether a setting may be changed where the configuration has what it names."""
    return any(key.startswith(start) and key.rpartition(".")[2] in names for start, names in _NAMED.items())


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be changed: settings with their new values, and those that go back to the other sources."""

    values: Mapping[str, Any]
    unset: tuple[str, ...] = ()
    author: str
    at: float
    reason: str = ""
    until: float | None = None  # of the new values


def changed(loaded: Loaded, before: LiveDocument, change: Change) -> tuple[LiveDocument, Loaded]:
    """Return the next document, and the settings with it.

    Raises:
        ConfigError: the settings would be wrong, now or once values have ended; a name is not one of a setting that may
            be changed, or not set.

    """
    revision, values = before.revision + 1, dict(before.values)
    for key in change.unset:
        if key not in values:
            raise ConfigError(f"{key} is not set live, so there is nothing to unset; set are: {_listed(values)}")
        del values[key]
    for key, value in change.values.items():
        values[key] = LiveValue(
            value=value,
            author=change.author,
            at=change.at,
            reason=change.reason,
            revision=revision,
            until=change.until,
            former=_former(before.values.get(key), value, change.until),
        )
    document = LiveDocument(revision=revision, values=values)
    if unknown := [key for key in change.values if key not in places(loaded.settings.model_dump())]:
        _check_names(loaded, unknown, set(values))
    live = with_live(loaded, document)
    _check_ends(loaded, document)
    return document, live


def _former(before: LiveValue | None, value: Any, until: float | None) -> LiveValue | None:  # noqa: ANN401
    """Return what counts again once a new value has ended; the same value that has an end gets another one."""
    if until is None:
        return None
    if before and before.until is not None and before.value == value:
        before = before.former
    return _at(until, before)


def _check_ends(loaded: Loaded, document: LiveDocument) -> None:
    while ends := [entry.until for entry in document.values.values() if entry.until is not None]:
        document = not_ended(document, end := min(ends))
        try:
            with_live(loaded, document)
        except ConfigError as error:
            raise ConfigError(f"once what is set until {in_words(end)} has ended: {error}") from None


def _check_names(loaded: Loaded, keys: list[str], values: set[str]) -> None:
    known = places(loaded.settings.model_dump())
    for key in keys:
        start = key.rpartition(".")[0]
        if key.startswith("policies.") and f"{start}.kind" in values and _is_of_a_name(key):
            continue  # a new policy
        close = get_close_matches(key, known, n=1, cutoff=0.7)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"{key} is not a setting that may be changed while the system runs{hint} (`bitladder settings list` shows "
            "those that may; others are changed in their files)"
        )


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(sorted(values)) or "none"


def in_words(at: float) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
