"""Settings that change while a process runs: one object that all its parts read, and the watch for changed files.

A process is built around most settings: connections, ports, signatures, tiers. Those need a restart: until then the
old value counts, and the log names it. All others are taken while it runs: policies and their files, marks and lanes,
limits, slots and prices in the configuration; checkpoints and their figures in the published release; an intake's API
keys; and the live settings that operators keep in Redis.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from bitladder.errors import ConfigError, QueueUnreachableError
from bitladder.settings.explain import explain, leaves
from bitladder.settings.live_values import NO_LIVE, LiveDocument, not_ended, with_live
from bitladder.settings.load import Loaded
from bitladder.settings.paths import Stamp, stamp_of
from bitladder.settings.sections import Settings

log = structlog.get_logger()
# One stat: cheap enough to be done every second, which is soon enough for a step that people take.
POLL_INTERVAL_S = 1.0
# Settings that may change while a process runs, by dotted key.
_CHANGEABLE = re.compile(
    r"auth\.(keys(\..+)?|required|max_in_flight)|policy\..+|policies(\..+)?|lanes\..+"
    r"|capture\.(share|max_mb|keep_s|without_tenants)|intake\.(admission|await_timeout_s|max_body_bytes)"
    r"|queue\.(max_depth|max_total|max_memory_share|max_per_tenant|fair_depth|max_wait_s)"
    r"|queue\.(result_ttl_s|dead_letter_ttl_s|max_dead_letters|deadline_share)"
    r"|models\..+\.(owned_by|max_model_len|max_overflow_cost_per_hour|policy|canary(\..+)?)"
    r"|models\..+\.tiers\..+\.(checkpoint|price_per_hour|slots|high|low|(high|low)_(age|wait)_s|eager|reserve|published(\..+)?)"
)

# Makes ready for settings, and returns what takes them; raises ConfigError where that cannot be.
_Prepare = Callable[[Settings], Callable[[], None]]
# Reads the live settings.
ReadLive = Callable[[], Awaitable[LiveDocument]]


class LiveSettings:
    """The settings of one process as they are now. Its parts keep this, not the settings, so all see a change."""

    def __init__(self, settings: Settings) -> None:
        self.current = settings
        self._prepares: list[_Prepare] = []

    @classmethod
    def of(cls, settings: Settings | LiveSettings) -> LiveSettings:
        """Return the settings of a process, or settings that do not change as such."""
        return settings if isinstance(settings, LiveSettings) else cls(settings)

    def subscribe(self, prepare: _Prepare) -> None:
        """Have something that was made of the settings made anew when they change."""
        self._prepares.append(prepare)

    def take(self, settings: Settings) -> None:
        """Let all parts of this process go by these settings from now on.

        Raises:
            ConfigError: they are wrong, or something has changed that needs a restart. Nothing is taken.

        """
        if settings == self.current:
            return
        checked, takes = self.prepared(settings)
        self.current = checked
        for take in takes:
            take()

    def prepared(self, settings: Settings) -> tuple[Settings, list[Callable[[], None]]]:
        """Return settings that all parts can take, and what makes each take them.

        Raises:
            ConfigError: as of `take`.

        """
        checked = _checked(settings)
        if keys := _fixed_keys_changed(self.current, checked):
            raise ConfigError(
                f"{', '.join(keys)} changed: that needs a restart, because the process is built around it"
            )
        return checked, [prepare(checked) for prepare in self._prepares]


def _keys_changed(old: Settings, new: Settings) -> list[str]:
    before, after = dict(leaves(old.model_dump())), dict(leaves(new.model_dump()))
    return sorted(key for key in {**before, **after} if before.get(key) != after.get(key))


def _fixed_keys_changed(old: Settings, new: Settings) -> list[str]:
    """Return the keys that differ and must not."""
    fixed = {key for key in _keys_changed(old, new) if not _CHANGEABLE.fullmatch(key)}
    ladders = {name: model.ladder for name, model in new.models.items()}
    if ladders != {name: model.ladder for name, model in old.models.items()}:
        fixed.add("models")  # their order counts, which the keys do not tell
    return sorted(fixed)


def _checked(settings: Settings) -> Settings:
    """Return settings that are right as a whole: copies with other values are not checked when they are made."""
    return _validated(settings.model_dump()).as_part_of(settings)


def _validated(tree: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, tree, {}, "the changed settings")) from None


def _merged(old: Any, new: Any, key: str = "") -> Any:  # noqa: ANN401  (a tree of settings, or a part of one)
    """Return the old tree with what may change as the new one has it."""
    if _CHANGEABLE.fullmatch(key):
        return new
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            name: _merged(old[name], new[name], f"{key}.{name}".lstrip(".")) if name in new else old[name]
            for name in old
        }
    if isinstance(old, tuple) and old and isinstance(old[0], dict):  # tiers: by their names
        by_name = {item["name"]: item for item in new}
        return tuple(_merged(item, by_name.get(name := item["name"], item), f"{key}.{name}") for item in old)
    return old


def as_far_as_live(running: Settings, changed: Settings) -> Settings:
    """Return what a running process takes of these settings: what it is built around waits for its restart.

    Raises:
        ConfigError: together they are wrong.

    """
    return _validated(_merged(running.model_dump(), changed.model_dump())).as_part_of(running)


class ReleaseWatch:
    """The settings of one process, and what they came from: each file is read again when it has changed.

    The live settings stand over the files. Where they are wrong, files are still taken, with the last that were right.
    """

    def __init__(
        self, load: Callable[[], Loaded], narrow: Callable[[Settings], Settings] = lambda whole: whole
    ) -> None:
        """`narrow` returns the part of the settings that this process, or this part of it, goes by."""
        self._load, self.narrow = load, narrow
        self.files = loaded = load()  # as they are, without the live settings
        self.settings = narrow(loaded.settings)
        self.live = NO_LIVE  # those in force
        self._heard = self._considered = NO_LIVE
        self.refused = 0  # changes that could not be taken
        self._problems: dict[str, str] = {}  # what is wrong with the last change of each kind, until it is mended
        self._note_files(loaded)
        # Older than the first look: what was changed while this process read its settings is not missed.
        self._stamps: dict[Path, Stamp] = {}
        self._had_keys_file = bool(loaded.keys_file and loaded.keys_file.exists())

    @classmethod
    def of(cls, settings: Settings) -> ReleaseWatch:
        """Return the watch of settings that came from no file."""
        loaded = Loaded(settings=settings, sources={}, release_file=None, config_file=Path(os.devnull))
        return cls(lambda: loaded)

    def narrow_to(self, narrow: Callable[[Settings], Settings]) -> None:
        """Go by a part of the settings alone, from the start of the process on."""
        self.narrow, self.settings = narrow, narrow(self.settings)

    @property
    def problem(self) -> str:
        """What is wrong with the last change, until it is mended."""
        return "; ".join(self._problems.values())

    async def hear(self, read: ReadLive) -> None:
        """Read the live settings: the next look takes them. While Redis is unreachable, the last ones stay."""
        try:
            self._heard = await read()
            self._problems.pop("redis", None)
        except ConfigError as error:
            self.refuse(error, kind="redis")
        except QueueUnreachableError:
            return  # which those say whose work it stops

    def _note_files(self, loaded: Loaded) -> None:
        self._keys_file = loaded.keys_file
        files = (loaded.config_file, loaded.release_file, loaded.keys_file, *loaded.policy_files)
        self._files = [file for file in files if file]

    def look(self) -> bool:
        """Return whether there are other settings: `settings` has them. Never raises for bad ones.

        While a change is refused, it is read again each time: what is wrong may be in a file that no good
        configuration has named yet.
        """
        try:
            stamps = {file: stamp_of(file) for file in self._files}
        except OSError as error:  # the disk is gone, which says nothing about the settings
            log.warning("settings not readable", file=error.filename, error=str(error))
            return False
        heard, live = (not_ended(document, time.time()) for document in (self._heard, self.live))
        is_same = stamps == self._stamps and heard == self._considered and live == self.live
        if is_same and "files" not in self._problems:
            return False
        self._stamps, self._considered, self.live = stamps, heard, live
        try:
            settings = self._changed(stamps, heard)
        except ConfigError as error:
            self.refuse(error)
            return False
        if settings == self.settings:
            self.taken()
            return False
        before, self.settings = self.settings, settings
        _log_taken(before, settings)
        return True

    def _changed(self, stamps: dict[Path, Stamp], heard: LiveDocument) -> Settings:
        if self._keys_file:
            is_there = stamps[self._keys_file] is not None
            if self._had_keys_file and not is_there:  # no order to accept requests without a key
                raise ConfigError(
                    f"the file of API keys {str(self._keys_file)!r} is gone; an empty one revokes them all"
                )
            self._had_keys_file = is_there
        files = self._load()
        loaded = self._with_live(files, heard)
        narrowed = self.narrow(loaded.settings)
        settings = as_far_as_live(self.settings, narrowed)
        if waiting := _fixed_keys_changed(settings, narrowed):
            log.warning("settings changed that need a restart", keys=waiting)
        self._note_files(loaded)
        self.files = files
        return _with_keys(self.settings, settings)

    def _with_live(self, files: Loaded, heard: LiveDocument) -> Loaded:
        try:
            loaded = with_live(files, heard)
        except ConfigError as error:
            if heard == self.live:  # these were right with the files before, so it is the files that do not fit
                raise
            self.refuse(error, kind="live")
            return with_live(files, self.live)
        self.live = heard
        self._problems.pop("live", None)
        return loaded

    def refuse(self, error: ConfigError, in_force: Settings | None = None, kind: str = "files") -> None:
        """Count a change that cannot be taken, once; `in_force`: what stays, where the change had been read well."""
        self.settings = in_force or self.settings
        if str(error) != self._problems.get(kind):
            self.refused, self._problems[kind] = self.refused + 1, str(error)
            log.error("change refused, what was before stays", error=str(error))

    def taken(self) -> None:
        """Note that the process goes by `settings`, as its files have them."""
        self._problems.pop("files", None)


def _log_taken(before: Settings, settings: Settings) -> None:
    if release_version(settings) != release_version(before):
        log.info("release taken", version=release_version(settings))
    if settings.auth != before.auth:
        log.info("API keys taken", keys=sorted(settings.auth.keys))
    if keys := [key for key in _keys_changed(before, settings) if not re.search(r"auth\.keys\.|\.published\.", key)]:
        log.info("settings taken", keys=keys)


async def take_changes(watch: ReleaseWatch, live: LiveSettings, read_live: ReadLive) -> None:
    """Look for changes of files and of the live settings, and take them into `live`."""
    await watch.hear(read_live)
    if await asyncio.to_thread(watch.look):
        try:
            live.take(watch.settings)
            watch.taken()
        except ConfigError as error:
            watch.refuse(error, live.current)


def _with_keys(old: Settings, new: Settings) -> Settings:
    """Return the new settings; taking the last key away never opens a running intake to everybody."""
    if old.auth.keys and not new.auth.keys and new.auth.required is None:
        return new.model_copy(update={"auth": new.auth.model_copy(update={"required": True})})
    return new


def release_version(settings: Settings) -> int:
    """Return the version of the published release that the settings came with, 0 where there is none."""
    tiers = [tier.published for model in settings.models.values() for tier in model.tiers]
    return max((published.version for published in tiers if published), default=0)
