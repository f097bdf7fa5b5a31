"""Prefix affinity on a trace: what it would bring that jobs go to the worker that has their prefix in its KV cache.

`python -m benchmarks.simulation.affinity TRACE`: a file of JSON lines, gzipped or not, each with `timestamp` (ms),
`input_length`, `output_length` and `hash_ids` (of blocks of 512 tokens): the form of Mooncake's traces. One tier of
equal workers on a virtual clock. A worker reads one prompt at a time, without the blocks that it still has, and writes
up to 16 answers beside that; what it has not used for longest leaves its cache first.

- pull: a free worker takes the oldest job, as today.
- affinity: a job waits up to a bound for the worker that served the longest known part of its prefix, then for any; a
  bound of 0 prefers that worker only where it has room at once, which is what bitladder does.
- shared: all workers read one cache of their capacities together. Nothing that places jobs can have more hits.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import itertools
import json
import random
import statistics
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.harness import ROOT, Figures, percentile, save, say

BLOCK = 512
SLOTS = 16
READ_TOKENS_PER_S, WRITE_TOKENS_PER_S = 20_000, 60  # of an 8B model on one large GPU; per answer
# Of the workers' reading time without any hit.
LOADS = (0.5, 0.9)
WORKERS = (2, 4, 8)
CACHE_TOKENS = (131_072, 524_288, 2_097_152)  # 8B with 8 KV heads: 128 KiB a token, so 16, 64 and 256 GiB
BOUNDS_S = (0.0, 0.5, 2.0)
PULL_S = -1.0  # no bound: no worker is preferred


class Job(msgspec.Struct, frozen=True, gc=False):
    """One request of the trace."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


class _Cache:
    """The blocks that a worker has, the one that was not used for longest first."""

    def __init__(self, blocks: int) -> None:
        self._blocks, self._has = blocks, OrderedDict[int, None]()

    def read(self, prefix: Sequence[int]) -> int:
        """Return how many of the first blocks are there, and have all of them from now on."""
        hits = next((at for at, block in enumerate(prefix) if block not in self._has), len(prefix))
        for block in reversed(prefix):  # the end of a prefix leaves before its beginning
            self._has[block] = None
            self._has.move_to_end(block)
        while len(self._has) > self._blocks:
            self._has.popitem(last=False)
        return hits


class Simulation:
    """One tier, from the first job to the last answer."""

    def __init__(
        self, jobs: Sequence[Job], workers: int, cache_tokens: int, bound_s: float | None, load: float
    ) -> None:
        read_s = sum(job.input_length for job in jobs) / READ_TOKENS_PER_S
        self._pace = read_s / workers / load / (jobs[-1].timestamp / 1000)  # the trace's time, stretched
        self._jobs, self._bound_s = jobs, bound_s
        blocks = cache_tokens // BLOCK
        shared = _Cache(blocks * workers)
        self._caches = [shared if bound_s is None else _Cache(blocks) for _ in range(workers)]
        self._free, self._reads_until = [SLOTS] * workers, [0.0] * workers
        self._waiting: deque[tuple[float, Job, int | None]] = deque()
        self._owner: dict[int, int] = {}  # by block: the worker that read it last
        self._random = random.Random(0)  # noqa: S311
        self._hit_tokens, self._first_s = 0, list[float]()

    def run(self) -> Figures:
        tick = itertools.count()
        arrivals = (job.timestamp / 1000 * self._pace for job in self._jobs)
        events: list[tuple[float, int, Job | int | None]] = [
            (at, next(tick), job) for at, job in zip(arrivals, self._jobs, strict=True)
        ]
        heapq.heapify(events)
        while events:
            now, _, what = heapq.heappop(events)
            if isinstance(what, Job):
                wanted = self._wanted(what)
                self._waiting.append((now, what, wanted))
                if wanted is not None and self._bound_s is not None:
                    heapq.heappush(events, (now + self._bound_s, next(tick), None))
            elif what is not None:
                self._free[what] += 1
            for worker, end_s in self._assigned(now):
                heapq.heappush(events, (end_s, next(tick), worker))
        tokens = sum(job.input_length for job in self._jobs)
        return {
            "hits": self._hit_tokens / tokens,
            "first_mean_s": statistics.fmean(self._first_s),
            "first_p95_s": percentile(self._first_s, 0.95),
        }

    def _wanted(self, job: Job) -> int | None:
        """Return the worker that read the longest part of the job's prefix, without the block that all share."""
        if self._bound_s is None or self._bound_s < 0:
            return None
        return next((self._owner[block] for block in reversed(job.hash_ids[1:]) if block in self._owner), None)

    def _assigned(self, now: float) -> Iterator[tuple[int, float]]:
        """Yield which worker takes a job now, and until when it has it."""
        kept: deque[tuple[float, Job, int | None]] = deque()
        while self._waiting and any(self._free):
            came_s, job, wanted = self._waiting.popleft()
            if wanted is not None and not self._free[wanted] and now - came_s < (self._bound_s or 0):
                kept.append((came_s, job, wanted))
                continue
            if wanted is None or not self._free[wanted]:
                wanted = self._random.choice([worker for worker, free in enumerate(self._free) if free])
            yield wanted, self._serve(wanted, job, came_s, now)
        self._waiting.extendleft(reversed(kept))

    def _serve(self, worker: int, job: Job, came_s: float, now: float) -> float:
        self._free[worker] -= 1
        hits = min(self._caches[worker].read(job.hash_ids) * BLOCK, job.input_length - 1)
        self._owner.update(dict.fromkeys(job.hash_ids, worker))
        self._hit_tokens += hits
        read_s = max(now, self._reads_until[worker]) + (job.input_length - hits) / READ_TOKENS_PER_S
        self._reads_until[worker] = read_s
        self._first_s.append(read_s - came_s)
        return read_s + job.output_length / WRITE_TOKENS_PER_S


def read_trace(path: Path) -> list[Job]:
    """Read a trace, in the order of time."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    jobs = [msgspec.json.decode(line, type=Job) for line in data.splitlines()]
    return sorted(jobs, key=lambda job: job.timestamp)


def main() -> None:
    """Simulate, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--short", action="store_true", help="the first 2,000 jobs")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench", help="folder for the JSON file")
    options = parser.parse_args()
    jobs = read_trace(options.trace)[: 2000 if options.short else None]
    bounds = {"pull": PULL_S} | {f"affinity, {bound_s:g} s": bound_s for bound_s in BOUNDS_S} | {"shared": None}
    rows = {}
    for load, workers, cache in itertools.product(LOADS, WORKERS, CACHE_TOKENS):
        for name, bound_s in bounds.items():
            figures = Simulation(jobs, workers, cache, bound_s, load).run()
            rows[f"load {load:g}, {workers} workers, {cache // 1024} Ki tokens, {name}"] = figures
            shown = {key: round(value, 3) for key, value in figures.items()}
            say(f"{load:4} {workers} {cache // 1024:5} {name:16} {json.dumps(shown)}")
    save("affinity", {"rows": rows}, options)


if __name__ == "__main__":
    main()
