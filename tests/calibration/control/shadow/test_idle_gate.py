"""When a tier gets a request, and when it is taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calibration.control.shadow.idle_gate import EndOfPassError, Gate
from calibration.control.shadow.idleness import Queue, TierLoad, Workers, obstacle, traffic


def load(*, normal: int = 0, batch: int = 0, running: int = 0, held: int = 0, **workers: Any) -> TierLoad:  # noqa: ANN401
    queues = [Queue("urgent", 0, 0), Queue("normal", normal, running), Queue("batch", batch, 0)]
    return TierLoad(queues, Workers(**{"tier": "fp8", "workers": 1, "slots": 16, "held": held, **workers}))


@pytest.mark.parametrize(
    ("now", "sent", "why"),
    [
        (load(), 0, ""),
        (load(normal=1), 0, "fp8: 1 interactive jobs wait"),
        (load(batch=2), 0, "fp8: 2 jobs of the batch lane wait"),
        (load(held=7), 0, ""),
        (load(held=8), 0, "fp8: 8 of 16 slots free, 9 needed"),
        (load(held=3, running=8), 0, "fp8: 8 of 16 slots free, 9 needed"),
        (load(held=6), 2, "fp8: 8 of 16 slots free, 9 needed"),
        (load(workers=0, slots=0), 0, "fp8: no live worker"),
        (load(slots=1), 0, "fp8: 1 of 1 slots free, 2 needed"),
        (load(breaker="open"), 0, "fp8: paused, or in trouble"),
        (load(paused={"by": "me"}), 0, "fp8: paused, or in trouble"),
        (load(shifted=True), 0, "fp8: paused, or in trouble"),
    ],
)
def test_a_tier_gets_a_request_only_with_slots_to_spare(now: TierLoad, sent: int, why: str) -> None:
    assert obstacle(now, sent, 0.5) == why


def test_what_runs_makes_room_only_where_somebody_waits_or_nobody_serves() -> None:
    assert [bool(traffic(now)) for now in (load(held=16, batch=9), load(normal=1), load(workers=0))] == [
        False,
        True,
        True,
    ]


class Tier:
    """A tier whose load a test sets, and requests that end when a test says so."""

    def __init__(self, now: TierLoad) -> None:
        self.now = now
        self.sent = self.withdrawn = 0
        self.end = asyncio.Event()
        self.gate = Gate(self.look, leave_free=0.5, max_wait_s=0.3)

    async def look(self) -> dict[str, TierLoad]:
        return {"fp8": self.now}

    async def send(self) -> str:
        self.sent += 1
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        return "answer"

    async def until_sent(self, count: int) -> None:
        while self.sent < count:  # noqa: ASYNC110  (what is tested sets no event)
            await asyncio.sleep(0.01)


async def test_nothing_is_sent_while_somebody_waits() -> None:
    tier = Tier(load(normal=3))

    with pytest.raises(EndOfPassError, match="busy: fp8: 3 interactive jobs wait"):
        await tier.gate.run("fp8", tier.send)

    assert tier.sent == 0


async def test_a_request_is_taken_back_when_somebody_waits_and_its_slot_is_free_again() -> None:
    tier = Tier(load())
    request = asyncio.create_task(tier.gate.run("fp8", tier.send))
    await tier.until_sent(1)
    tier.now = load(normal=1)

    assert await request is None
    assert tier.withdrawn == 1
    tier.now = load(held=7)
    tier.end.set()
    assert await tier.gate.run("fp8", tier.send) == "answer"


async def test_requests_in_flight_count_before_the_workers_say_so() -> None:
    tier = Tier(load(held=6))
    requests = [asyncio.create_task(tier.gate.run("fp8", tier.send)) for _ in range(3)]
    await asyncio.sleep(0.1)

    assert tier.sent == 2
    tier.end.set()
    assert await asyncio.gather(*requests) == ["answer"] * 3


async def test_a_stop_ends_what_waits_and_what_runs() -> None:
    tier = Tier(load(held=7))
    running = asyncio.create_task(tier.gate.run("fp8", tier.send))
    await tier.until_sent(1)
    waiting = asyncio.create_task(tier.gate.run("fp8", tier.send))
    await asyncio.sleep(0)
    tier.gate.stop()

    assert await running is None
    with pytest.raises(EndOfPassError, match="stopped"):
        await waiting
    assert (tier.sent, tier.withdrawn) == (1, 1)
