"""What is asked and ordered about live settings, and the answers: the same over HTTP and from the command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from bitladder.errors import ConfigError
from bitladder.queue.json_views.kinds import Count, Timestamp
from bitladder.queue.upkeep.live_settings import HistoryEntry, LiveStore, RevisionError, SettingChange
from bitladder.settings.live_values import (
    NO_LIVE,
    Change,
    LiveDocument,
    changed,
    not_ended,
    places,
    with_live,
    without_effect,
)
from bitladder.settings.load import Loaded
from bitladder.settings.sections import Settings

MAX_KEYS, _MAX_REASON, _MAX_KEY = 100, 300, 400
MAX_LISTED = 500
_MAX_SECONDS = 366 * 86_400
# Others may change them in between.
_TRIES = 5
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_KEY)]
_Revision = Annotated[
    int, msgspec.Meta(ge=0, description="The revision that the client has read: where it is another, 409.")
]

_Seconds = Annotated[
    float,
    msgspec.Meta(
        ge=1,
        le=_MAX_SECONDS,
        description="After so many seconds the new values end: what was set before counts again. null: until unset.",
    ),
]


class SettingsChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /v1/settings."""

    set: Annotated[dict[_Key, Any], msgspec.Meta(max_length=MAX_KEYS, description="New values by dotted key.")] = {}
    unset: Annotated[
        list[_Key], msgspec.Meta(max_length=MAX_KEYS, description="Keys that go back to the other sources.")
    ] = []
    unset_all: Annotated[bool, msgspec.Meta(description="All of them, also where they cannot be read.")] = False
    reason: Annotated[str, msgspec.Meta(max_length=_MAX_REASON)] = ""
    for_s: _Seconds | None = None
    revision: _Revision | None = None
    dry_run: Annotated[bool, msgspec.Meta(description="Only check it.")] = False


class LiveNote(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed a setting, when and why."""

    author: str = msgspec.field(name="by")
    at: Timestamp
    reason: str
    revision: Count
    until: Annotated[Timestamp | None, msgspec.Meta(description="When it ends; null: when it is unset.")]
    in_effect: Annotated[bool, msgspec.Meta(description="false: the configuration has no such model, tier or key.")]


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that may be changed."""

    key: str
    value: Annotated[Any, msgspec.Meta(description="What processes go by.")]
    configured: Annotated[Any, msgspec.Meta(description="What they would go by without the live settings.")]
    source: str
    live: Annotated[LiveNote | None, msgspec.Meta(description="null: it is not changed.")]


class SettingList(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that may be changed while the system runs."""

    object: Literal["list"] = "list"
    revision: Count
    problem: Annotated[str | None, msgspec.Meta(description="Why what Redis has is refused; null: it is not.")]
    data: list[SettingRow]


class SettingsChanged(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed."""

    revision: Count
    dry_run: bool
    changes: list[SettingChange]


class SettingsHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The last changes, the latest first."""

    object: Literal["list"] = "list"
    data: list[HistoryEntry]


async def list_settings(store: LiveStore, files: Loaded, *, only_live: bool = False) -> SettingList:
    """List the settings that may be changed, with what each process makes of its files and of Redis."""
    problem, document, loaded = None, NO_LIVE, files
    try:
        document = await store.read()
        loaded = with_live(files, document)
    except ConfigError as error:
        problem, document = str(error), NO_LIVE
    configured, current = _values(files), _values(loaded)
    rows = [
        _row(key, current, configured, loaded, document) for key in current if key in document.values or not only_live
    ]
    rows += [_lost(key, document) for key in without_effect(files, document)]
    return SettingList(revision=document.revision, problem=problem, data=rows)


async def change_settings(
    store: LiveStore,
    files: Loaded,
    order: SettingsChange,
    author: str,
    check: Callable[[Settings], object] = lambda _: None,
) -> SettingsChanged:
    """Check a change as a whole, store it and note it; `check` raises where a process could not take it.

    Raises:
        ConfigError: it is wrong.
        RevisionError: somebody else has changed the settings.

    """
    _check_order(order)
    for _ in range(_TRIES):
        raw, before = await _held(store, order)
        if order.revision not in (None, before.revision):
            raise RevisionError(
                f"the live settings have revision {before.revision}, not {order.revision}: read them again",
                param="revision",
            )
        unset = tuple(before.values) if order.unset_all else tuple(order.unset)
        now = round(time.time(), 3)
        until = None if order.for_s is None else now + order.for_s
        change = Change(values=order.set, unset=unset, author=author, at=now, reason=order.reason, until=until)
        document, loaded = changed(files, before, change)
        check(loaded.settings)
        changes = _changes(files, before, change, loaded)
        entry = HistoryEntry(
            revision=document.revision, at=now, author=author, reason=order.reason, until=until, changes=changes
        )
        if order.dry_run or await store.write(raw, document, entry):
            return SettingsChanged(revision=document.revision, dry_run=order.dry_run, changes=changes)
    raise RevisionError("others change the live settings at this moment: try again")


async def read_history(store: LiveStore, limit: int) -> SettingsHistory:
    """Return the last changes."""
    return SettingsHistory(data=await store.history(limit))


def _check_order(order: SettingsChange) -> None:
    if not (order.set or order.unset or order.unset_all):
        raise ConfigError("the change must name settings, in set or unset, or say unset_all")
    if both := sorted(order.set.keys() & set(order.unset)):
        raise ConfigError(f"{both[0]} is in set and in unset: it must be in one of them")
    if order.unset_all and (order.set or order.unset):
        raise ConfigError("unset_all takes all settings back, so nothing may be in set or unset")
    if order.for_s is not None and not order.set:
        raise ConfigError("for_s is of new values: set must name some")


async def _held(store: LiveStore, order: SettingsChange) -> tuple[bytes, LiveDocument]:
    """Return the document as it is stored and as it reads; what cannot be read may be taken back, and nothing else."""
    try:
        raw = await store.read_raw()
    except ConfigError:
        if not order.unset_all:
            raise
        return b"", NO_LIVE
    try:
        return raw, not_ended(store.decoded(raw), time.time())
    except ConfigError:
        if not order.unset_all:
            raise
        return raw, NO_LIVE


def _values(loaded: Loaded) -> dict[str, Any]:
    known = places(loaded.settings.model_dump(mode="json"))
    return {key: table[name] for key, (table, name) in known.items()}


def _row(
    key: str, current: dict[str, Any], configured: dict[str, Any], loaded: Loaded, document: LiveDocument
) -> SettingRow:
    below = (source for leaf, source in loaded.sources.items() if leaf.startswith(f"{key}."))
    source = loaded.sources.get(key) or next(below, "default")
    note = _note(key, document, in_effect=True) if key in document.values else None
    return SettingRow(key=key, value=current[key], configured=configured.get(key), source=source, live=note)


def _lost(key: str, document: LiveDocument) -> SettingRow:
    note = _note(key, document, in_effect=False)
    return SettingRow(key=key, value=None, configured=None, source="none", live=note)


def _note(key: str, document: LiveDocument, *, in_effect: bool) -> LiveNote:
    entry = document.values[key]
    return LiveNote(
        author=entry.author,
        at=entry.at,
        reason=entry.reason,
        revision=entry.revision,
        until=entry.until,
        in_effect=in_effect,
    )


def _changes(files: Loaded, before: LiveDocument, change: Change, loaded: Loaded) -> list[SettingChange]:
    try:
        old = _values(with_live(files, before))
    except ConfigError:  # of another version, or the files have changed: those counted
        old = _values(files)
    new = _values(loaded)
    return [
        SettingChange(key=key, old=old.get(key), new=new.get(key), unset=key in change.unset)
        for key in (*change.values, *change.unset)
    ]
