"""The folders of published checkpoints: whether they are what was measured, and the mark that keeps them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bitladder.settings.checkpoint_digest import checkpoint_digest
from bitladder.settings.paths import CACHE, in_cache
from bitladder.settings.release import Release
from bitladder.settings.sections import Settings
from calibration.artifacts.folder import PUBLISHED, replace_file
from calibration.terminal.progress import now_and_then

# Told what is being done with a tier.
OnStep = Callable[[str, str], None]


def folder_of(checkpoint: str, settings: Settings) -> Path:
    return in_cache(checkpoint, settings.vllm.cache_dir)


def portable(folder: Path, settings: Settings) -> str:
    """Return a path that means the same on machines whose cache is elsewhere, and tomorrow: no links, no '..'."""
    folder, cache = folder.resolve(), Path(settings.vllm.cache_dir).expanduser().resolve()
    return f"{CACHE}/{folder.relative_to(cache)}" if folder.is_relative_to(cache) else str(folder)


def changes(name: str, folder: Path, digest: str, on_step: OnStep) -> list[str]:
    """Return what tells that a folder does not hold the checkpoint any more that the digest was taken of."""
    text = "comparing its digest"
    on_step(name, text)
    on_read = now_and_then(partial(on_step, name), f"{text}, MB", 10**6)
    try:
        if not (folder / "config.json").is_file():
            return [f"{name}: there is no checkpoint in {folder} (no config.json)"]
        if checkpoint_digest(folder, on_read=on_read) != digest:
            return [f"{name}: {folder} has changed since it was measured"]
    except OSError as error:
        return [f"{name}: {folder} cannot be read: {error}"]
    return []


def mark(release: Release, settings: Settings, file: Path, on_step: OnStep) -> None:
    """Mark the checkpoints of a release, so that no later calibration replaces one."""
    for model, tiers in release.models.items():
        for tier, entry in tiers.tiers.items():
            folder = folder_of(entry.checkpoint, settings)
            try:
                replace_file(folder / PUBLISHED, f"release {release.version} of {file}, {model} {tier}\n".encode())
            except OSError as error:
                on_step(tier, f"{folder} could not be marked as published: {error.strerror}")
