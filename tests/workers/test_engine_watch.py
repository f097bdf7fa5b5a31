"""workers/engine_watch.py: an engine that goes and comes."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher.errors import EngineFaultError
from dispatcher.sections import EchoSettings
from workers import engine_watch
from workers.engine_watch import EngineWatch
from workers.engines.echo import EchoEngine


class Reluctant(EchoEngine):
    """An echo engine that answers only after some tries to start it."""

    def __init__(self, tries: int) -> None:
        super().__init__(EchoSettings.model_validate({}))
        self.tries = tries

    async def is_healthy(self) -> bool:
        return self.tries <= 0

    async def start(self) -> None:
        self.tries -= 1
        if self.tries == 2:
            raise ValueError("a defect")
        if self.tries > 0:
            raise EngineFaultError("not yet")


async def test_an_engine_is_tried_again_until_it_starts_whatever_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_watch, "LOOK_EVERY_S", 0.0001)
    told: list[bool] = []
    ready = asyncio.Event()

    async def on_ready(is_ready: bool) -> None:
        told.append(is_ready)
        ready.set()

    watch = asyncio.create_task(EngineWatch(Reluctant(4), on_ready, lambda load: None).run())
    await asyncio.wait_for(ready.wait(), 5)
    watch.cancel()

    assert told == [True]
