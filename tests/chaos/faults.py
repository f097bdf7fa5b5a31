"""What goes wrong, drawn from a seed: one thing at a time for the processes, one at a time for the network."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.chaos.proxy import Proxy
from tests.chaos.services import Fleet, Service

# A worker that is so young has not set up its answer to SIGTERM.
GROWN_UP_S = 5.0

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Breaks things until cancelled, and puts them right again."""

    def __init__(self, fleet: Fleet, proxy: Proxy, lease_s: float, pause_s: float, rng: random.Random) -> None:
        self._fleet, self._proxy, self._lease_s = fleet, proxy, lease_s
        self._pause_s = pause_s  # between two faults, on average
        self._rng = rng
        self.count: Counter[str] = Counter()

    async def run(self) -> None:
        """Break things until cancelled."""
        processes: list[tuple[Fault, int]] = [
            (self._kill_worker, 6),
            (self._stall_worker, 4),
            (self._roll_worker, 3),
            (self._kill_intake, 2),
            (self._stall_intake, 2),
            (self._kill_valkey, 3),
            (self._stall_valkey, 2),
        ]
        network: list[tuple[Fault, int]] = [
            (self._delay, 2),
            (self._throttle, 1),
            (self._hold, 2),
            (self._black_hole, 2),
            (self._cut, 4),
            (self._refuse, 2),
        ]
        try:
            await asyncio.gather(self._some(processes), self._some(network))
        finally:
            self._proxy.heal()
            for service in self._fleet.all:
                service.is_held_down = False
                service.signal(signal.SIGCONT)

    async def _some(self, faults: list[tuple[Fault, int]]) -> None:
        rng = random.Random(self._rng.random())  # of its own: the other list's pace must not change these draws
        while True:
            await asyncio.sleep(rng.uniform(0.2, 1.8) * self._pause_s)
            fault = rng.choices([fault for fault, _ in faults], weights=[weight for _, weight in faults])[0]
            self.count[fault.__name__.strip("_")] += 1
            await fault()

    async def _kill_worker(self) -> None:
        self._rng.choice(self._fleet.workers).signal(signal.SIGKILL)

    async def _roll_worker(self) -> None:
        worker = self._rng.choice(self._fleet.workers)
        if worker.age_s > GROWN_UP_S:
            worker.signal(signal.SIGTERM)

    async def _kill_intake(self) -> None:
        self._rng.choice(self._fleet.intakes).signal(signal.SIGKILL)

    async def _kill_valkey(self) -> None:
        self._fleet.valkey.is_held_down = True
        self._fleet.valkey.signal(signal.SIGKILL)
        await asyncio.sleep(self._rng.choice((0, 0.5, 2)))
        self._fleet.valkey.is_held_down = False

    async def _stall_worker(self) -> None:
        await self._stall(self._rng.choice(self._fleet.workers), self._lease_s * self._rng.uniform(1.2, 2))

    async def _stall_intake(self) -> None:
        await self._stall(self._rng.choice(self._fleet.intakes), self._rng.uniform(0.3, 2))

    async def _stall_valkey(self) -> None:
        await self._stall(self._fleet.valkey, self._rng.uniform(0.2, 1.5))

    @staticmethod
    async def _stall(service: Service, pause_s: float) -> None:
        service.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(pause_s)
        finally:
            service.signal(signal.SIGCONT)

    async def _delay(self) -> None:
        self._proxy.delay(self._rng.uniform(0.01, 0.1))
        await self._heal_after(1, 3)

    async def _throttle(self) -> None:
        self._proxy.throttle(self._rng.choice((20_000, 100_000)))
        await self._heal_after(1, 2)

    async def _hold(self) -> None:
        self._proxy.hold()
        await self._heal_after(0.3, self._lease_s * 1.5)

    async def _black_hole(self) -> None:
        self._proxy.black_hole()
        await self._heal_after(0.3, self._lease_s * 1.5)

    async def _refuse(self) -> None:
        self._proxy.refuse()
        self._proxy.cut()
        await self._heal_after(0.3, 2)

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _heal_after(self, least_s: float, most_s: float) -> None:
        try:
            await asyncio.sleep(self._rng.uniform(least_s, most_s))
        finally:
            self._proxy.heal()
