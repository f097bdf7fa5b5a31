"""workers/slots.py: the limit follows the engine's batch, whatever it is."""

from __future__ import annotations

import pytest

from workers.engines.base import EngineLoad
from workers.slots import Slots


class Batching:
    """An engine that runs up to `batch` of the jobs it holds and lets the rest wait."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def load(self, held: int) -> EngineLoad:
        return EngineLoad(running=min(held, self.batch), waiting=max(0, held - self.batch))


def held_after(slots: Slots, engine: Batching, readings: int) -> list[int]:
    """Return how many jobs the worker holds at each reading while jobs wait; those above the limit have ended."""
    held = []
    for _ in range(readings):
        held.append(slots.limit)
        slots.adapt(engine.load(slots.limit), slots.limit)
    return held


@pytest.mark.parametrize("batch", [1, 4, 16, 100, 256])
def test_the_batch_is_kept_full_and_little_waits_in_the_engine(batch: int) -> None:
    slots = Slots(1, 512)

    held = held_after(slots, Batching(batch), 60)[2:]

    assert min(held) >= batch
    assert max(held) <= batch + max(2, batch // 4)


def test_a_batch_that_grows_is_followed() -> None:
    slots, engine = Slots(1, 64), Batching(4)
    held_after(slots, engine, 20)

    engine.batch = 32

    assert held_after(slots, engine, 40)[-1] >= 32


def test_one_reading_between_two_steps_of_the_engine_does_not_empty_the_batch() -> None:
    slots = Slots(1, 64)
    held_after(slots, Batching(16), 20)

    slots.adapt(EngineLoad(running=3, waiting=14), slots.limit)

    assert slots.limit >= 16


def test_a_full_cache_lowers_the_limit_to_four_fifths_of_what_is_held_but_leaves_the_least() -> None:
    slots, full = Slots(2, 64), EngineLoad(running=40, cache_used=0.95)

    for _ in range(5):
        slots.adapt(full, 60)  # none of them ends
    first = slots.limit
    for held in range(60, 0, -1):
        slots.adapt(full, held)

    assert first == 48
    assert slots.limit == 2


def test_the_same_least_and_most_fix_the_limit() -> None:
    slots = Slots(8, 8)

    held_after(slots, Batching(2), 10)

    assert slots.limit == 8


def test_a_changed_maximum_counts_at_once_and_never_lifts_what_the_engine_has_lowered() -> None:
    free, slow = Slots(1, 8), Slots(4, 8)
    slow.back_off()

    free.resize(1, 16)
    slow.resize(4, 16)
    assert (free.limit, slow.limit) == (16, 4)

    free.resize(4, 2)
    assert (free.limit, free.free(5)) == (2, 0)
