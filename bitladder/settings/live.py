"""Notice that another release was published, and take it without a restart. A bad one is refused, the old one stays.

Only what a ladder says is taken (checkpoints and their figures): whatever else has changed in the configuration since
needs a restart, because a process is built around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from bitladder.errors import ConfigError
from bitladder.settings.load import Loaded
from bitladder.settings.models import ModelSettings, TierSettings
from bitladder.settings.sections import Settings

log = structlog.get_logger()
# One stat: cheap enough to be done every second, which is soon enough for a step that people take.
LOOK_EVERY_S = 1.0

# What tells one state of a file from another; None: there is none.
_Stamp = tuple[int, int, int] | None


class ReleaseWatch:
    """The settings of one process, and the published release that they came with."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        loaded = load()
        self.settings = loaded.settings
        self.refused = 0  # ladders that could not be taken
        self._file = loaded.release_file
        # Older than the first look: what was published while this process read its settings is not missed.
        self._stamp: _Stamp | str = "never looked"

    def look(self) -> bool:
        """Return whether there is another release; `settings` has it then. Never raises for a bad one."""
        if self._file is None:
            return False
        try:
            stamp = _stamp(self._file)
        except OSError as error:  # the disk is away: it says nothing about the ladder
            log.warning("ladder not seen", file=str(self._file), error=str(error))
            return False
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            settings = with_checkpoints(self.settings, self._load().settings)
        except ConfigError as error:
            self.refused += 1
            log.error("ladder refused, the one before stays", error=str(error))
            return False
        if settings == self.settings:
            return False
        self.settings = settings
        log.info("ladder taken", file=str(self._file), version=release_version(settings))
        return True


async def follow(watch: ReleaseWatch, take: Callable[[Settings, int], None]) -> None:
    """Tell `take` the settings and the number of refused ladders, at once and after every look, until cancelled."""
    while True:
        await asyncio.to_thread(watch.look)
        take(watch.settings, watch.refused)
        await asyncio.sleep(LOOK_EVERY_S)


def with_checkpoints(old: Settings, new: Settings) -> Settings:
    """Return the old settings with the checkpoints and figures of the new ones. Pure."""
    models = {
        name: _with_tiers(model, new.models[name]) if name in new.models else model
        for name, model in old.models.items()
    }
    return old.model_copy(update={"models": models})


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
