"""workers/rollout/rolling_update.py: a checkpoint that does not start takes one worker down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from bitladder.settings.live import ReleaseWatch
from bitladder.settings.load import Loaded
from bitladder.settings.release import Published
from bitladder.settings.sections import Settings
from workers.engines.echo import EchoEngine
from workers.engines.errors import EngineFaultError
from workers.rollout.rolling_update import RollingUpdate

LIVE = "bl:live:smollm2:int4"


class Release:
    """What two workers read: one file that says when, and settings that say what."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder, self.file = settings, folder, folder / "ladder.toml"

    def publish(self, name: str, version: int, digest: str = "a" * 64) -> None:
        checkpoint = self.folder / name
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "config.json").touch()
        model = self.settings.model("smollm2")
        published = Published(version=version, digest=digest)
        int4 = model.tier("int4").model_copy(update={"checkpoint": str(checkpoint), "published": published})
        tiers = (int4, *model.tiers[1:])
        models = {"smollm2": model.model_copy(update={"tiers": tiers})}
        self.settings = self.settings.model_copy(update={"models": models})
        self.file.write_text(str(version), encoding="utf-8")

    def load(self) -> Loaded:
        return Loaded(settings=self.settings, sources={}, config_file=Path("bitladder.toml"), release_file=self.file)


class Picky(EchoEngine):
    """Does not start with a checkpoint called bad."""

    def __init__(self, settings: Settings, model: str, tier: str) -> None:
        super().__init__(settings.echo)
        self._is_bad = settings.model(model).tier(tier).checkpoint.endswith("bad")

    async def start(self) -> Any:  # noqa: ANN401  (as the echo engine)
        if self._is_bad:
            raise EngineFaultError("a bad checkpoint")
        return await super().start()

    async def is_healthy(self) -> bool:
        return not self._is_bad and await super().is_healthy()


async def until(condition: Callable[[], bool], description: str) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"not in 20 s: {description}")


async def test_a_checkpoint_that_does_not_start_takes_one_worker_down_until_a_better_one_is_published(
    settings: Settings, store: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.rollout.rolling_update.POLL_INTERVAL_S", 0.1)
    ladder = Release(settings, tmp_path)
    ladder.publish("good", 1)
    both = [RollingUpdate(ReleaseWatch(ladder.load), "smollm2", "int4", Picky) for _ in range(2)]
    running = [asyncio.create_task(update.run()) for update in both]
    await until(lambda: store.zcard(LIVE) == 2, "both serve")

    ladder.publish("bad", 2)
    await until(lambda: store.zcard(LIVE) == 1, "one tries the new one")
    await asyncio.sleep(1)
    was_served_meanwhile = store.zcard(LIVE)
    ladder.publish("good", 3)
    await until(lambda: store.zcard(LIVE) == 2, "the rollback brings it back")
    await until(lambda: not store.exists("bl:rollout:smollm2"), "the lock is released")

    assert was_served_meanwhile == 1
    for update in both:
        update.drain()
    await asyncio.wait_for(asyncio.gather(*running), 20)
    assert store.zcard(LIVE) == 0


async def test_other_weights_in_the_same_folder_are_another_checkpoint_and_another_version_is_not(
    settings: Settings, store: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.rollout.rolling_update.POLL_INTERVAL_S", 0.1)
    ladder = Release(settings, tmp_path)
    ladder.publish("good", 1)
    update = RollingUpdate(ReleaseWatch(ladder.load), "smollm2", "int4", Picky)
    running = asyncio.create_task(update.run())
    await until(lambda: store.zcard(LIVE) == 1, "it serves")
    first = update.pump

    ladder.publish("good", 22)
    await asyncio.sleep(0.5)
    unchanged = update.pump
    ladder.publish("good", 333, digest="b" * 64)
    await until(lambda: update.pump is not first and update.pump.leases.is_ready, "it has begun anew")

    assert unchanged is first
    update.drain()
    await asyncio.wait_for(running, 20)
