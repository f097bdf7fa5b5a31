"""What a running stack holds at a moment: memory, descriptors and threads of its processes, and what is in Redis."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import redis

from tests.chaos.slopes import Slope, slope
from tests.chaos.system.scene import Scene
from tests.chaos.system.services import Service
from tests.chaos.traffic.history import History

MB = 1e6
# Families of keys that grow with the jobs; of all others there are few, so that their sizes are looked at as well.
PER_JOB = ("rq:job", "bl:stream", "bl:idem", "rq:results")
# RQ's registries of ended jobs: few keys, of a size that goes with the jobs.
REGISTRIES = ("rq:finished", "rq:failed", "rq:canceled")
# A process that was started again begins a series of its own; what is too short to judge has fewer samples than this.
MIN_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Series that are judged alike."""

    name: str
    unit: str
    limit: float  # an hour
    share: float = 0.0  # of the level, where that is more

    def named(self, of: str) -> tuple[Measure, str]:
        return self, of


# 16 MB in an hour are 260 bytes for each of sixty thousand jobs: less than one object that is kept of each.
MEMORY = Measure(name="RSS", unit="MB", limit=16)
FILES = Measure(name="file descriptors", unit="", limit=10)
THREADS = Measure(name="threads", unit="", limit=2)
STORED = Measure(name="Redis used_memory above an empty server's", unit="MB", limit=8, share=0.2)
CLIENTS = Measure(name="Redis connections", unit="", limit=10)
KEYS = Measure(name="keys", unit="", limit=60, share=0.2)
SIZE = Measure(name="size of keys", unit="kB", limit=60, share=0.2)
MEASURES = (MEMORY, FILES, THREADS, STORED, CLIENTS, KEYS, SIZE)

Series = dict[tuple[Measure, str], float]


@dataclass(slots=True)
class Samples:
    """A table of moments."""

    times_s: list[float] = field(default_factory=list)
    rows: list[Series] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)  # jobs by then

    async def take(self, its: Scene, history: History, every_s: float) -> None:
        """Take samples until cancelled."""
        while True:
            row = await asyncio.to_thread(stored, its.store)
            for service in (*its.fleet.intakes, *its.fleet.workers):
                row |= running(service)
            self.accepted.append(history.accepted_count())
            self.times_s.append(time.monotonic())
            self.rows.append(row)
            await asyncio.sleep(every_s)

    def write(self, path: Path) -> None:
        """Write down every sample, to be looked at where a slope is to be explained."""
        rows = zip(self.times_s, self.accepted, self.rows, strict=True)
        lines = [
            {
                "s": at_s - self.times_s[0],
                "accepted": accepted,
                **{f"{kind.name} {of}": value for (kind, of), value in row.items()},
            }
            for at_s, accepted, row in rows
        ]
        path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))

    def slopes(self, warm_up_s: float, window_s: float) -> dict[tuple[Measure, str], Slope]:
        """Return the slope of every series that has no gap after the warm-up; of keys there may be none for a time.

        What goes with the jobs of the last `window_s` is taken as if there were as many of them all the time: the load
        is never quite steady.
        """
        first = next((at for at, at_s in enumerate(self.times_s) if at_s - self.times_s[0] >= warm_up_s), 0)
        times_s, rows = self.times_s[first:], self.rows[first:]
        if len(rows) < MIN_SAMPLES:
            raise ValueError(
                f"{len(rows)} samples after a warm-up of {warm_up_s:g} s: at least {MIN_SAMPLES} are needed"
            )
        recent = self._recent(window_s)[first:]
        found = {}
        for kind, of in sorted(
            {name for row in rows for name in row}, key=lambda name: (MEASURES.index(name[0]), name[1])
        ):
            values = [row.get((kind, of), 0 if kind in (KEYS, SIZE) else None) for row in rows]
            there = [value for value in values if value is not None]
            if len(there) < len(rows):
                continue
            if kind is STORED or of in PER_JOB or (kind is SIZE and of in REGISTRIES):
                there = [value * fmean(recent) / jobs for value, jobs in zip(there, recent, strict=True)]
            found[kind, of] = slope(times_s, there, kind.limit, kind.share)
        return found

    def _recent(self, window_s: float) -> list[int]:
        """Return for each sample how many jobs were accepted in the time before it; at least one."""
        starts = [bisect_left(self.times_s, at_s - window_s) for at_s in self.times_s]
        return [max(1, count - self.accepted[start]) for count, start in zip(self.accepted, starts, strict=True)]


def running(service: Service) -> Series:
    """Return what the system says of a process; nothing if it is gone."""
    if not service.lives:
        return {}
    of, folder = f"{service.name}.{len(service.lives) - 1}", Path("/proc", str(service.lives[-1].pid))
    try:
        status = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", (folder / "status").read_text(), re.M))
        files = len(list((folder / "fd").iterdir()))
    except OSError:
        return {}
    if len(status) < 2:
        return {}  # it has ended, and nobody has looked yet
    return {
        MEMORY.named(of): int(status["VmRSS"]) * 1024 / MB,
        FILES.named(of): files,
        THREADS.named(of): int(status["Threads"]),
    }


def stored(store: redis.Redis) -> Series:
    """Return what Redis holds, by families of keys."""
    families: dict[bytes, str] = {key: family(key) for key in store.scan_iter("*", count=1000)}
    row = {KEYS.named(name): float(count) for name, count in Counter(families.values()).items()}
    few = {key: name for key, name in families.items() if name not in PER_JOB}
    pipe = store.pipeline(transaction=False)
    for key in few:
        pipe.memory_usage(key)
    for name, size in zip(few.values(), pipe.execute(), strict=True):
        row[SIZE.named(name)] = row.get(SIZE.named(name), 0) + (size or 0) / 1000
    info: dict[str, Any] = store.info()
    row[STORED.named("all")] = (info["used_memory"] - info["used_memory_startup"]) / MB
    row[CLIENTS.named("all")] = info["connected_clients"]
    return row


def family(key: bytes) -> str:
    """Return the words that keys of one sort have in common."""
    return b":".join(key.split(b":")[:2]).decode()
