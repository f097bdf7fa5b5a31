"""What a page of jobs costs, with a thousand jobs and with a million: `python -m benchmarks.load.job_pages`.

Half of the jobs wait and half have ended in the last hour. The first thousand of each came through the real scripts;
the others are copies of their records, with times and places of their own.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
import uvloop

from benchmarks.backlog import BUNDLE, DONE, QUEUE, Backlog
from benchmarks.harness import Figures, arguments, save, say, target, valkey
from bitladder.contract import State
from bitladder.queue.calls.end import Finished
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.job_list import JobList, list_jobs
from bitladder.queue.server.connection import connect

REAL = 1_000
PAGE = 50
# Copies of one call: the server's other clients wait meanwhile.
_CHUNK = 5_000
# Copy the record of a job that waits, or has ended, so many times from a number on. KEYS: the record, and the
# list or registry. ARGV: first number, how many, how many in all, 'list' or 'ended', now (s), ttl (s).
_COPY = """
local fields = redis.call('HGETALL', KEYS[1])
local at = {}
for i = 1, #fields, 2 do at[fields[i]] = i + 1 end
local first, count, all = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
for number = first, first + count - 1 do
  local id = string.format('01890000-0000-7000-8000-%012x', number) .. ARGV[4]
  local ms = math.floor((now - 3600 + 3600 * number / all) * 1000)
  if ARGV[4] == 'list' then
    fields[at['wait']] = string.format('%.0f %.0f %d', ms, ms + 86400000, number)
    redis.call('RPUSH', KEYS[2], id)
  else
    local seconds = math.floor(ms / 1000) % 86400
    local clock = string.format('%02d:%02d:%02d.%03dZ', seconds / 3600, seconds / 60 % 60, seconds % 60, ms % 1000)
    fields[at['ended_at']] = string.sub(fields[at['ended_at']], 1, 11) .. clock
    redis.call('ZADD', KEYS[2], math.floor(ms / 1000) + ttl, id)
  end
  redis.call('HSET', 'rq:job:' .. id, unpack(fields))
end
"""


class Jobs(Backlog):
    """One server with so many jobs, half of which wait."""

    async def prepare(self) -> None:
        """Put the jobs there."""
        self.queue = JobQueue(connect(self.settings.redis), self.settings)
        half = self.depth // 2
        real = min(half, REAL)
        for _ in range(0, 2 * real, BUNDLE):
            await self.queue.submit([self.submission() for _ in range(BUNDLE)])
        for _ in range(0, real, BUNDLE):
            jobs = (await self.queue.claim("bench.int4.w", "bench", "int4", self.plan, BUNDLE)).jobs
            await self.queue.finish("bench.int4.w", [Finished(job=job, outcome=DONE) for job in jobs])
        self._copy("list", half - real)
        self._copy("ended", half - real)

    def _copy(self, kind: str, count: int) -> None:
        registry = f"rq:finished:{QUEUE}"
        place = f"rq:queue:{QUEUE}" if kind == "list" else registry
        some: Any = self.client.lindex(place, 0) if kind == "list" else self.client.zrange(registry, 0, 0)[0]
        ttl_s = self.settings.queue.result_ttl_s
        for first in range(0, count, _CHUNK):
            self.client.eval(
                _COPY,
                2,
                b"rq:job:" + some,
                place,
                first,
                min(_CHUNK, count - first),
                count,
                kind,
                int(time.time()),
                ttl_s,
            )


Step = Callable[[Jobs], Awaitable[JobList]]


async def first_page(at: Jobs) -> JobList:
    return await list_jobs(at.queue, JobFilter(), None, PAGE)


async def ten_pages(at: Jobs) -> JobList:
    page = await list_jobs(at.queue, JobFilter(), None, PAGE)
    for _ in range(9):
        page = await list_jobs(at.queue, JobFilter(), page.next_cursor, PAGE)
    return page


async def waiting_page(at: Jobs) -> JobList:
    return await list_jobs(at.queue, JobFilter(state=(State.QUEUED,)), None, PAGE)


async def ended_page(at: Jobs) -> JobList:
    return await list_jobs(at.queue, JobFilter(state=(State.FINISHED,)), None, PAGE)


async def rare_page(at: Jobs) -> JobList:
    """Look for what there is none of: as many records are looked at as one page may."""
    return await list_jobs(at.queue, JobFilter(tag="none"), None, PAGE)


STEPS: Mapping[str, Step] = {
    "the first page of 50": first_page,
    "ten pages, one after the other": ten_pages,
    "a page of those that wait": waiting_page,
    "a page of those that finished": ended_page,
    "a page of a tag that no job has": rare_page,
}


def main() -> None:
    """Measure and write the figures."""
    options = arguments(__doc__)
    sizes = (1_000, 20_000) if options.short else (1_000, 1_000_000)
    with contextlib.ExitStack() as stack:
        servers = []
        for size in sizes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers.append(Jobs(stack.enter_context(valkey(folder)), size))
        rows = uvloop.run(measure(servers, 10 if options.short else 30))
    slowest = max(row["slowest_us"] for row in rows.values())
    targets = [target(f"slowest script call at {sizes[-1]:,} jobs, us", slowest, 2_000, at_most=True)]
    save("job_pages", {"sizes": list(sizes), "rows": rows, "targets": targets}, options)


async def measure(servers: Sequence[Jobs], calls: int) -> Figures:
    """Read every page at every size, server after server."""
    for server in servers:
        await server.prepare()
        say(f"{server.depth:,} jobs, {server.client.info('memory')['used_memory'] / 2**20:,.0f} MiB")
        server.client.config_set("slowlog-log-slower-than", 0)
        server.client.config_set("slowlog-max-len", 1_000)
    rows: Figures = {}
    for name, step in STEPS.items():
        rows[name] = {}
        for server in servers:
            samples = [await _timed(step, server) for _ in range(calls)]
            rows[name][f"ms_at_{server.depth}"] = statistics.median(sample[0] for sample in samples)
        rows[name] |= {
            "redis_ms": statistics.median(sum(sample[1]) for sample in samples) / 1000,
            "slowest_us": max(map(min, zip(*(sample[1] for sample in samples), strict=False))),
            "looked_at": samples[-1][2],
        }
        say(f"{name}: {rows[name]}")
    for server in servers:
        await server.queue.client.aclose()
    return rows


async def _timed(step: Step, at: Jobs) -> tuple[float, list[int], int]:
    """Return ms of a page, us of each script call for it, and how many records were looked at.

    Every repetition makes the same calls, and other load on the machine only adds to their times: of each call the
    least says what it takes.
    """
    at.client.slowlog_reset()
    start = time.perf_counter()
    page = await step(at)
    took_ms = (time.perf_counter() - start) * 1000
    scripts = [entry["duration"] for entry in _slowlog(at.client) if entry["command"].startswith(b"EVALSHA")]
    return took_ms, scripts[::-1], page.looked_at or 0


def _slowlog(client: redis.Redis) -> list[dict[str, Any]]:
    return list(client.slowlog_get(1_000))


if __name__ == "__main__":
    main()
