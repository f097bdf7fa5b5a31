"""Whether a tier's folder still holds the checkpoint that was published."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from bitladder.settings.checkpoint_digest import remembered_digest
from bitladder.settings.models_section import TierSettings
from bitladder.settings.paths import in_cache
from bitladder.settings.worker_section import VllmSettings
from workers.engines.errors import EngineFaultError


async def require_published(tier: TierSettings, settings: VllmSettings) -> None:
    """Raise EngineFaultError unless the folder holds what the release says; a tier of no release has no such promise.

    The first time, and after a file has changed, every byte is read; else sizes and times are looked at.
    """
    if tier.published is None:
        return
    stop = threading.Event()  # a worker that ends does not wait until all is read
    try:
        problem = await asyncio.to_thread(published_problem, tier, settings, stop)
    finally:
        stop.set()
    if problem:
        raise EngineFaultError(f"tier {tier.name}: {problem}")


def published_problem(tier: TierSettings, settings: VllmSettings, stop: threading.Event | None = None) -> str:
    """Return why a folder is not the checkpoint that its release names; '' where it is."""
    assert tier.published  # noqa: S101  (the callers have looked)
    folder, expected = in_cache(tier.checkpoint, settings.cache_dir), tier.published.digest
    try:
        digest = remembered_digest(folder, Path(settings.cache_dir).expanduser(), stop)
    except OSError as error:
        return f"{str(folder)!r} cannot be read: {error.strerror}: {error.filename}"
    if digest == expected:
        return ""
    return (
        f"{str(folder)!r} is not the checkpoint of release {tier.published.version}: its sha256 is {digest[:12]}..., "
        f"expected {expected[:12]}...; put that back, publish what is there, or roll back"
    )
