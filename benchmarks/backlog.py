"""What a long queue costs: three servers side by side with backlogs of different depth: `python -m benchmarks.backlog`.

Nothing on the way of a job may take longer because others wait. RQ's own look at a job's place (LPOS) is beside it.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import redis
import uvloop

from benchmarks.harness import CONFIG, Figures, arguments, process, save, say, target, valkey, wait_for
from benchmarks.peers.base import prompts
from bitladder.contract import Claimed, Outcome, State, Submission
from bitladder.endpoints import Endpoint
from bitladder.producer import Producer
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import Lane
from bitladder.routing.accept import Incoming, accept
from bitladder.settings.load import load_settings

BUNDLE = 64
QUEUE = "bench:int4:normal"
LIST = f"rq:queue:{QUEUE}"
DONE = Outcome(state=State.FINISHED, status=200)
# Draining more than this at the largest depth says nothing new.
MAX_DRAINED = 100_000


class Backlog:
    """One server with so many waiting jobs."""

    def __init__(self, url: str, depth: int) -> None:
        self.settings = load_settings(CONFIG, environ={}, flags={"redis.url": url}).settings
        self.url, self.depth = url, depth
        self.client = redis.Redis.from_url(url)
        self.plan = claim_plan(self.settings, "bench", "int4")
        self.prompt = prompts(1)[0]
        self.queue: JobQueue
        self.bytes_per_job = 0.0
        self._ids: list[str] = []

    def fill(self) -> None:
        """Queue the jobs, all of the same body: what matters here is how many there are."""
        empty = self.client.info("memory")["used_memory"]
        body = {"model": "bench", "prompt": self.prompt, "max_tokens": 1}
        with Producer(self.settings) as producer:
            producer.submit_many((body for _ in range(self.depth)), lane=Lane.NORMAL)
        self.bytes_per_job = (self.client.info("memory")["used_memory"] - empty) / self.depth

    def look_up(self, count: int) -> None:
        """Fetch so many ids from the middle of the list, before the measuring: it is a walk through half of it."""
        first = (self.depth - count) // 2
        self._ids = [str(job_id, "ascii") for job_id in self.client.lrange(LIST, first, first + count - 1)]  # type: ignore[arg-type]  # bytes

    def middle(self) -> str:
        """Return another id of the middle."""
        return self._ids.pop()

    def submission(self) -> Submission:
        incoming = Incoming(endpoint=Endpoint.COMPLETIONS, body=_body(self.prompt), headers={}, request_id="b")
        return accept(incoming, self.settings).submission


def _body(prompt: str) -> bytes:
    return b'{"model":"bench","prompt":"%s","max_tokens":1}' % prompt.encode()


Step = Callable[[Backlog], Awaitable[float]]


async def _timed(work: Awaitable[object]) -> float:
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1e6


async def claim(at: Backlog) -> float:
    """Claim a bundle; what was claimed goes back, so that the depth stays."""
    start = time.perf_counter()
    jobs = (await at.queue.claim("w", "bench", "int4", at.plan, BUNDLE)).jobs
    took = (time.perf_counter() - start) * 1e6
    for job in reversed(jobs):
        await at.queue.requeue("w", job, job.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    return took


async def finish(at: Backlog) -> float:
    """Finish a bundle; as many are submitted again."""
    jobs = (await at.queue.claim("w", "bench", "int4", at.plan, BUNDLE)).jobs
    took = await _timed(at.queue.finish("w", [_finished(job) for job in jobs]))
    await at.queue.submit([at.submission() for _ in jobs])
    return took


def _finished(job: Claimed) -> Finished:
    return Finished(job=job, outcome=DONE)


async def submit(at: Backlog) -> float:
    """Submit a bundle; as many are finished."""
    jobs = [at.submission() for _ in range(BUNDLE)]
    took = await _timed(at.queue.submit(jobs))
    claimed = (await at.queue.claim("w", "bench", "int4", at.plan, BUNDLE)).jobs
    await at.queue.finish("w", [_finished(job) for job in claimed])
    return took


async def submit_one(at: Backlog) -> float:
    """Submit one job; it is cancelled again."""
    job = at.submission()
    took = await _timed(at.queue.submit([job]))
    await at.queue.cancel(job.job_id)
    return took


async def queues(at: Backlog) -> float:
    """Read what /v1/queues shows."""
    return await _timed(at.queue.depths("bench"))


async def position(at: Backlog) -> float:
    """Read a job of the middle, its place included."""
    job_id = at.middle()
    return await _timed(at.queue.view(job_id))


async def cancel(at: Backlog) -> float:
    """Cancel a job of the middle; another is submitted."""
    job_id = at.middle()
    took = await _timed(at.queue.cancel(job_id))
    await at.queue.submit([at.submission()])
    return took


async def rq_position(at: Backlog) -> float:
    """Ask as RQ's Job.get_position does."""
    job_id = at.middle()
    start = time.perf_counter()
    at.client.lpos(LIST, job_id)
    return (time.perf_counter() - start) * 1e6


STEPS: Mapping[str, Step] = {
    "claim of 64": claim,
    "finish of 64": finish,
    "submit of 64": submit,
    "submit of one": submit_one,
    "all queues": queues,
    "a job and its place": position,
    "cancel": cancel,
}
BESIDE: Mapping[str, Step] = {"RQ's get_position (LPOS)": rq_position}


def main() -> None:
    """Measure and write the figures."""
    options = arguments(__doc__)
    depths = (1_000, 20_000, 100_000) if options.short else (1_000, 100_000, 1_000_000)
    with contextlib.ExitStack() as stack:
        backlogs = []
        for depth in depths:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            backlogs.append(Backlog(stack.enter_context(valkey(folder)), depth))
            backlogs[-1].fill()
            say(f"{depth:,} jobs wait, {backlogs[-1].bytes_per_job:,.0f} bytes each")
        rows = uvloop.run(measure(backlogs, 50 if options.short else 300))
        drains = [drain(backlog) for backlog in backlogs]
    found = {
        "depths": list(depths),
        "rows": rows,
        "bytes_per_job": [backlog.bytes_per_job for backlog in backlogs],
        "drains": drains,
        "targets": [
            target(f"{name}, at {depths[-1]:,} of at {depths[0]:,}", its["ratio"], 1.5, at_most=True)
            for name, its in rows.items()
            if name in STEPS
        ],
    }
    save("backlog", found, options)


async def measure(backlogs: Sequence[Backlog], calls: int) -> Figures:
    """Call every step at every depth, server after server, call by call."""
    for backlog in backlogs:
        backlog.queue = JobQueue(connect(backlog.settings.redis), backlog.settings)
    rows: Figures = {}
    for name, step in {**STEPS, **BESIDE}.items():
        samples: list[list[float]] = [[] for _ in backlogs]
        for backlog in backlogs:
            backlog.look_up(calls)
        for number in range(calls):
            for taken, backlog in zip(samples, backlogs, strict=True):
                took = await step(backlog)
                if number >= calls // 10:  # the first ones warm it
                    taken.append(took)
        medians = [statistics.median(taken) for taken in samples]
        rows[name] = {f"us_at_{at.depth}": median for at, median in zip(backlogs, medians, strict=True)}
        rows[name]["ratio"] = medians[-1] / medians[0]
        say(f"{name}: {[round(median) for median in medians]} us")
    for backlog in backlogs:
        await backlog.queue.client.aclose()
    return rows


def drain(at: Backlog) -> Figures:
    """Let one worker process drain the backlog, or the first part of a large one."""
    registry, before = f"rq:finished:{QUEUE}", 0
    client = at.client
    wanted = min(at.depth, MAX_DRAINED)
    command = [sys.executable, "-P", "-m", "workers", "--tier", "int4", "--config", CONFIG]
    with process(command, {"BITLADDER_REDIS__URL": at.url}):
        before = int(client.zcard(registry))
        wait_for(lambda: int(client.zcard(registry)) > before + wanted // 50, "the worker works")
        start, first = time.perf_counter(), int(client.zcard(registry))
        wait_for(lambda: int(client.zcard(registry)) >= before + wanted, "the jobs are done", 300)
        rate = (int(client.zcard(registry)) - first) / (time.perf_counter() - start)
    say(f"{at.depth:,}: drained {wanted:,} at {rate:,.0f}/s")
    return {"depth": at.depth, "drained": wanted, "per_s": rate, "whole_backlog_s": at.depth / rate}


if __name__ == "__main__":
    main()
