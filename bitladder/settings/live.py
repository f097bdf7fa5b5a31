"""Settings that change while a process runs: one object that all its parts read, and the watch for changed files.

A process is built around most settings: connections, ports, signatures, tiers. Those need a restart, and a change of
them is refused. What a published release says (checkpoints and their figures) is taken without one, and so are an
intake's API keys.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import ValidationError

from bitladder.errors import ConfigError
from bitladder.settings.access import AuthSettings
from bitladder.settings.explain import explain, leaves
from bitladder.settings.load import Loaded
from bitladder.settings.models_section import ModelSettings, TierSettings
from bitladder.settings.sections import Settings

log = structlog.get_logger()
# One stat: cheap enough to be done every second, which is soon enough for a step that people take.
POLL_INTERVAL_S = 1.0
# Settings that may change while a process runs, by dotted key.
_CHANGEABLE = re.compile(
    r"auth\.(keys(\..+)?|required|max_in_flight)|policy\..+|lanes\.(urgent_from|batch_to)"
    r"|capture\.(share|max_mb|keep_s|without_tenants)|intake\.(admission|await_timeout_s|max_body_bytes)"
    r"|queue\.(max_depth|max_total|max_memory_share|max_per_tenant|fair_depth|max_wait_s)"
    r"|queue\.(result_ttl_s|dead_letter_ttl_s|max_dead_letters)"
    r"|models\..+\.(owned_by|max_model_len)|models\..+\.tiers\..+\.(checkpoint|price_per_hour|published(\..+)?)"
)

# What tells one state of a file from another; None: there is none.
_Stamp = tuple[int, int, int] | None
# Makes ready for settings, and returns what takes them; raises ConfigError where that cannot be.
_Prepare = Callable[[Settings], Callable[[], None]]


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
        checked = _checked(settings)
        if keys := _fixed_keys_changed(self.current, checked):
            raise ConfigError(
                f"{', '.join(keys)} changed: that needs a restart, because the process is built around it"
            )
        takes = [prepare(checked) for prepare in self._prepares]
        self.current = checked
        for take in takes:
            take()


def _fixed_keys_changed(old: Settings, new: Settings) -> list[str]:
    """Return the keys that differ and must not."""
    before, after = dict(leaves(old.model_dump())), dict(leaves(new.model_dump()))
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    fixed = {key for key in changed if not _CHANGEABLE.fullmatch(key)}
    ladders = {name: model.ladder for name, model in new.models.items()}
    if ladders != {name: model.ladder for name, model in old.models.items()}:
        fixed.add("models")  # their order counts, which the keys do not tell
    return sorted(fixed)


def _checked(settings: Settings) -> Settings:
    """Return settings that are right as a whole: copies with other values are not checked when they are made."""
    tree = settings.model_dump()
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, tree, {}, "the changed settings")) from None


class ReleaseWatch:
    """The settings of one process, the published release that they came with, and of an intake its API keys."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        loaded = load()
        self.settings = loaded.settings
        self.refused = 0  # changes that could not be taken
        self._keys_file = loaded.keys_file
        # Keys may be in the configuration too.
        files = (loaded.release_file, loaded.keys_file, loaded.config_file if loaded.keys_file else None)
        self._files = [file for file in files if file]
        # Older than the first look: what was published while this process read its settings is not missed.
        self._stamps: dict[Path, _Stamp] = {}
        self._had_keys_file = bool(loaded.keys_file and loaded.keys_file.exists())

    def look(self) -> bool:
        """Return whether there is another release, or other keys: `settings` has them. Never raises for bad ones."""
        try:
            stamps = {file: _stamp(file) for file in self._files}
        except OSError as error:  # the disk is gone, which says nothing about the release
            log.warning("release not readable", file=error.filename, error=str(error))
            return False
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            settings = self._changed(stamps)
        except ConfigError as error:
            self.refuse(error)
            return False
        if settings == self.settings:
            return False
        before, self.settings = self.settings, settings
        if settings.models != before.models:
            log.info("release taken", version=release_version(settings))
        if settings.auth != before.auth:
            log.info("API keys taken", keys=sorted(settings.auth.keys))
        return True

    def _changed(self, stamps: dict[Path, _Stamp]) -> Settings:
        if self._keys_file:
            is_there = stamps[self._keys_file] is not None
            if self._had_keys_file and not is_there:  # no order to accept requests without a key
                raise ConfigError(
                    f"the file of API keys {str(self._keys_file)!r} is gone; an empty one revokes them all"
                )
            self._had_keys_file = is_there
        new = self._load().settings
        settings = _with_checkpoints(self.settings, new)
        return _with_keys(settings, new.auth) if self._keys_file else settings

    def refuse(self, error: ConfigError) -> None:
        """Count a change that cannot be taken."""
        self.refused += 1
        log.error("change refused, what was before stays", error=str(error))


async def follow(watch: ReleaseWatch, live: LiveSettings, report: Callable[[int], None]) -> None:
    """Take each release that is published into `live`; `report` is told how many were refused. Until cancelled."""
    while True:
        if await asyncio.to_thread(watch.look):
            try:
                live.take(watch.settings)
            except ConfigError as error:
                watch.refuse(error)
        report(watch.refused)
        await asyncio.sleep(POLL_INTERVAL_S)


def _with_checkpoints(old: Settings, new: Settings) -> Settings:
    """Return the old settings with the checkpoints and figures of the new ones. Pure."""
    models = {
        name: _with_tiers(model, new.models[name]) if name in new.models else model
        for name, model in old.models.items()
    }
    return old.model_copy(update={"models": models})


def _with_keys(old: Settings, auth: AuthSettings) -> Settings:
    """Return settings with the keys of others; taking the last key away never opens a running intake to everybody."""
    is_last_gone = bool(old.auth.keys) and not auth.keys and auth.required is None
    keys = {"keys": auth.keys, "required": True if is_last_gone else auth.required}
    return old.model_copy(update={"auth": old.auth.model_copy(update=keys)})


def release_version(settings: Settings) -> int:
    """Return the version of the published release that the settings came with, 0 where there is none."""
    tiers = [tier.published for model in settings.models.values() for tier in model.tiers]
    return max((published.version for published in tiers if published), default=0)


def _with_tiers(old: ModelSettings, new: ModelSettings) -> ModelSettings:
    by_name = {tier.name: tier for tier in new.tiers}
    return old.model_copy(update={"tiers": tuple(_with_checkpoint(tier, by_name.get(tier.name)) for tier in old.tiers)})


def _with_checkpoint(old: TierSettings, new: TierSettings | None) -> TierSettings:
    return old.model_copy(update={"checkpoint": new.checkpoint, "published": new.published}) if new else old


def _stamp(file: Path) -> _Stamp:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
