"""What goes wrong: drawn from a seed, or by a script. Each fault stands in the timeline for as long as it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

from tests.chaos.checks.timeline import EVERYBODY, Loss, Timeline
from tests.chaos.system.scene import Scene, until_answering
from tests.chaos.system.services import Service

Fault = Callable[[], Awaitable[None]]
# An outage that is longer than a lease, in leases.
LONG = (1.1, 1.3)
# What a killed server may not have written yet with `everysec`: it puts a write off while it syncs an earlier one.
UNWRITTEN_S = 1.0
# For so long before and after an outage nobody submits: workers then have nothing to claim, which would renew a lease.
HUSH_S = 2.0
# Connections that were cut are made again, and what was late has arrived, within so much.
SETTLED_S = 1.0


class Faults:
    """Breaks things, and puts them right again."""

    def __init__(self, its: Scene, timeline: Timeline, is_open: threading.Event, rng: random.Random) -> None:
        self._its, self._timeline, self._rng = its, timeline, rng
        self._is_open = is_open  # whether jobs may be submitted
        self._lease_s = its.settings.queue.lease_s
        self.count: Counter[str] = Counter()

    async def run(self, pause_s: float) -> None:
        """Break things until cancelled, one of the processes and one in the network at a time."""
        with self._healed():
            await asyncio.gather(self._some(self._of_processes(), pause_s), self._some(self._of_network(), pause_s))

    async def play(self, script: Sequence[tuple[float, Fault]]) -> None:
        """Begin each fault so many seconds from now, beside those that go on."""
        with self._healed():
            async with asyncio.TaskGroup() as tasks:
                for at_s, fault in script:
                    tasks.create_task(self._later(at_s, fault))

    def _of_processes(self) -> list[tuple[Fault, float]]:
        power: list[tuple[Fault, float]] = [(self.lose_last_second, 3)]
        return [
            (self.kill_worker, 6),
            (self.stop_worker, 3),
            (self.stop_worker_for_long, 2),
            (self.roll_worker, 3),
            (self.kill_intake, 2),
            (self.stop_intake, 2),
            (self.kill_valkey, 3),
            (self.stop_valkey, 2),
            (self.end_valkey_for_long, 0.7),
            (self.cut_valkey_off_silently, 1),
            (self.stop_valkey_for_long, 0.7),
            *(power if self._is_forgetful else []),
        ]

    def _of_network(self) -> list[tuple[Fault, float]]:
        return [
            (self.delay, 2),
            (self.throttle, 1),
            (self.hold, 2),
            (self.black_hole, 2),
            (self.cut, 4),
            (self.refuse, 2),
            (self.cut_worker, 2),
            (self.cut_worker_off, 2),
            (self.cut_everybody_off, 1),
        ]

    async def _some(self, faults: list[tuple[Fault, float]], pause_s: float) -> None:
        rng = random.Random(self._rng.random())  # of its own: the other list's pace must not change these draws
        while True:
            await asyncio.sleep(rng.uniform(0.2, 1.8) * pause_s)
            (fault,) = rng.choices([fault for fault, _ in faults], weights=[weight for _, weight in faults])
            await self._later(0, fault)

    async def _later(self, at_s: float, fault: Fault) -> None:
        await asyncio.sleep(at_s)
        self.count[fault.__name__] += 1
        await fault()

    @contextlib.contextmanager
    def _healed(self) -> Iterator[None]:
        try:
            yield
        finally:
            for proxy in self._its.proxies:
                proxy.heal()
            self._is_open.set()
            for service in self._its.fleet.all:
                service.is_held_down = False
                service.signal(signal.SIGCONT)

    @property
    def _is_forgetful(self) -> bool:
        return self._its.settings.queue.durability == "everysec"

    # Processes.

    async def kill_worker(self) -> None:
        self._rng.choice(self._its.fleet.workers).signal(signal.SIGKILL)

    async def kill_highest_worker(self) -> None:
        self._its.fleet.workers[-1].signal(signal.SIGKILL)

    async def stop_highest_worker_for_long(self) -> None:
        await self._stop(self._its.fleet.workers[-2], self._long_s())

    async def roll_worker(self) -> None:
        self._rng.choice(self._its.fleet.workers).signal(self._rng.choice((signal.SIGTERM, signal.SIGHUP)))

    async def kill_intake(self) -> None:
        intake = self._rng.choice(self._its.fleet.intakes)
        with self._timeline.trouble("kill_intake", intake.name):
            intake.signal(signal.SIGKILL)
            await asyncio.sleep(SETTLED_S)

    async def stop_worker(self) -> None:
        await self._stop(self._rng.choice(self._its.fleet.workers), self._rng.uniform(0.5, 5))

    async def stop_worker_for_long(self) -> None:
        await self._stop(self._rng.choice(self._its.fleet.workers), self._long_s() * self._rng.uniform(1, 1.4))

    async def stop_intake(self) -> None:
        await self._stop(self._rng.choice(self._its.fleet.intakes), self._rng.uniform(0.3, 3))

    async def stop_valkey(self) -> None:
        await self._stop(self._its.fleet.valkey, self._rng.uniform(0.2, 2))

    async def stop_valkey_for_long(self) -> None:
        await self._stop(self._its.fleet.valkey, self._long_s())

    async def _stop(self, service: Service, pause_s: float) -> None:
        target = EVERYBODY if service is self._its.fleet.valkey else service.name
        with self._timeline.trouble("stop", target):
            service.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(pause_s)
            finally:
                service.signal(signal.SIGCONT)
            await asyncio.sleep(SETTLED_S)

    async def kill_valkey(self) -> None:
        await self._kill_valkey(self._rng.choice((0, 0.5, 2)))

    async def end_valkey_for_long(self) -> None:
        await self._kill_valkey(self._long_s())

    async def cut_valkey_off_silently(self) -> None:
        self._is_open.clear()
        await asyncio.sleep(HUSH_S)
        await self.end_valkey_for_long()
        await asyncio.sleep(HUSH_S)
        self._is_open.set()

    async def lose_last_second(self) -> None:
        await self._kill_valkey(self._rng.choice((0, 0.5)), lost_s=self._rng.uniform(0.2, 1))

    async def _kill_valkey(self, unreachable_s: float, lost_s: float = 0) -> None:
        valkey = self._its.fleet.valkey
        with self._timeline.trouble("kill_valkey", EVERYBODY):
            valkey.is_held_down = True
            valkey.signal(signal.SIGKILL)
            while valkey.is_running:
                await asyncio.sleep(0.01)
            ended_s = time.time()
            kept_s = self._its.disk.cut(ended_s, lost_s) if lost_s else ended_s
            if self._is_forgetful:
                self._timeline.losses.append(Loss(since_s=kept_s - UNWRITTEN_S, at_s=ended_s))
            try:
                await asyncio.sleep(unreachable_s)
            finally:
                valkey.is_held_down = False
            await until_answering(self._its.embedded)
            await asyncio.sleep(SETTLED_S)

    # The network.

    async def delay(self) -> None:
        delay_s = self._rng.uniform(0.01, 0.1)
        for proxy in self._its.proxies:
            proxy.delay(delay_s)
        await self._heal_everybody(self._rng.uniform(1, 3))

    async def throttle(self) -> None:
        bytes_per_s = self._rng.choice((20_000, 100_000))
        for proxy in self._its.proxies:
            proxy.throttle(bytes_per_s)
        await self._heal_everybody(self._rng.uniform(1, 2))

    async def hold(self) -> None:
        for proxy in self._its.proxies:
            proxy.hold()
        await self._heal_everybody(self._rng.uniform(0.3, 4))

    async def black_hole(self) -> None:
        for proxy in self._its.proxies:
            proxy.black_hole()
        await self._heal_everybody(self._rng.uniform(0.3, 4))

    async def refuse(self) -> None:
        for proxy in self._its.proxies:
            proxy.refuse()
            proxy.cut()
        await self._heal_everybody(self._rng.uniform(0.3, 2))

    async def cut(self) -> None:
        for proxy in self._its.proxies:
            proxy.cut()
        await self._heal_everybody(0)

    async def cut_everybody_off(self) -> None:
        how = self._rng.randrange(3)
        for proxy in self._its.proxies:
            (proxy.hold, proxy.black_hole, proxy.refuse)[how]()
            if how == 2:
                proxy.cut()
        await self._heal_everybody(self._long_s())

    async def cut_worker(self) -> None:
        name = self._rng.choice(list(self._its.own))
        with self._timeline.trouble("cut_worker", name):
            self._its.own[name].cut()
            await asyncio.sleep(SETTLED_S)

    async def cut_worker_off(self) -> None:
        name = self._rng.choice(list(self._its.own))
        proxy = self._its.own[name]
        with self._timeline.trouble("cut_worker_off", name):
            self._rng.choice((proxy.hold, proxy.black_hole))()
            try:
                await asyncio.sleep(self._long_s() * self._rng.uniform(0.3, 1.4))
            finally:
                proxy.heal()
            await asyncio.sleep(SETTLED_S)

    async def _heal_everybody(self, after_s: float) -> None:
        with self._timeline.trouble("network", EVERYBODY):
            try:
                await asyncio.sleep(after_s)
            finally:
                for proxy in self._its.proxies:
                    proxy.heal()
            await asyncio.sleep(SETTLED_S)

    def _long_s(self) -> float:
        return self._lease_s * self._rng.uniform(*LONG)
