"""More workers, more intakes, and what saturates first: `python -m benchmarks.scale`.

docs/operating/capacity.md reads it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import redis
import uvloop

from benchmarks.harness import CONFIG, Figures, arguments, process, save, say, spread_of, valkey, wait_for
from benchmarks.load import wrk
from benchmarks.peers.base import cpu_s, prompts
from benchmarks.servers.stacks import stack
from bitladder.contract import Chunk
from bitladder.endpoints import Endpoint
from bitladder.producer import Producer
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import Lane
from bitladder.routing.accept import Incoming, accept
from bitladder.settings.load import load_settings

REGISTRY = "rq:finished:bench:int4:batch"
BODY = {"model": "bench", "prompt": prompts(1)[0], "max_tokens": 16}
# A GPU that makes 2,500 output tokens a second over its batch answers ten requests of 250 tokens a second.
TOKENS_PER_REQUEST = 250
REQUESTS_PER_S_OF_A_GPU = 10
# A server with one thread is not to be planned fuller than this: waits grow without bound towards 1.
PLANNED_USE = 0.6


def main() -> None:
    """Measure and write the figures."""
    options = arguments(__doc__)
    jobs, seconds, rounds = (10_000, 2, 1) if options.short else (60_000, 5, 3)
    samples: dict[str, list[Figures]] = {}
    for number in range(rounds):
        for workers in (1, 2, 4):
            samples.setdefault(f"drain, {workers} worker processes", []).append(drained(workers, jobs))
        for intakes in (1, 2):
            samples.setdefault(f"POST /v1/jobs, {intakes} intakes", []).append(accepted(intakes, seconds))
        say(f"{number + 1}/{rounds}")
    rows = {name: spread_of(its) for name, its in samples.items()}
    chunk_us = uvloop.run(chunk_cost())
    save("scale", {"rows": rows, "capacity": capacity(rows, chunk_us), "targets": []}, options)


def drained(workers: int, jobs: int) -> Figures:
    """Drain a filled queue with so many worker processes."""
    with contextlib.ExitStack() as block:
        url = block.enter_context(valkey(Path(block.enter_context(tempfile.TemporaryDirectory()))))
        client = redis.Redis.from_url(url)
        settings = load_settings(CONFIG, environ={}, flags={"redis.url": url}).settings
        pids = {"valkey": int(client.info("server")["process_id"])}
        filling_s = cpu_s(pids["valkey"])
        with Producer(settings) as producer:
            producer.submit_many((BODY for _ in range(jobs)), lane=Lane.BATCH)
        filling_s = cpu_s(pids["valkey"]) - filling_s
        command = [sys.executable, "-P", "-m", "workers", "--tier", "int4", "--config", CONFIG]
        for number in range(workers):
            pids[f"worker {number}"] = block.enter_context(process(command, {"BITLADDER_REDIS__URL": url})).pid
        wait_for(lambda: int(client.zcard(REGISTRY)) > jobs // 10, "the workers work")
        used = {name: cpu_s(pid) for name, pid in pids.items()}
        start, first = time.perf_counter(), int(client.zcard(REGISTRY))
        wait_for(lambda: int(client.zcard(REGISTRY)) >= jobs, "the jobs are done", 300)
        seconds = time.perf_counter() - start
        used = {name: cpu_s(pid) - used[name] for name, pid in pids.items()}
    own = {"submit_server_us": filling_s / jobs * 1e6}
    return _load((jobs - first) / seconds, seconds, used) | own


def accepted(intakes: int, seconds: float) -> Figures:
    """Post jobs to so many intakes, one worker behind them."""
    body = msgspec.json.encode(BODY)
    with stack("int4", {"BITLADDER_CONFIG": CONFIG}, intakes=intakes) as running, ThreadPoolExecutor() as threads:
        routes = [f"{url}/v1/jobs" for url in running.urls]
        used = {name: cpu_s(pid) for name, pid in running.pids.items()}
        loads = list(threads.map(lambda url: wrk.load(url, body, connections=32 // intakes, seconds=seconds), routes))
        used = {name: cpu_s(pid) - used[name] for name, pid in running.pids.items()}
    if any(load.errors for load in loads):
        raise RuntimeError(f"{sum(load.errors for load in loads)} requests failed")
    return _load(sum(load.requests_per_s for load in loads), loads[0].seconds, used)


def _load(rate: float, seconds: float, used: Mapping[str, float]) -> Figures:
    """Return a rate, and of each kind of process the fullest one's share of a core and the CPU time per job."""
    kinds: dict[str, list[float]] = {}
    for name, cpu in used.items():
        kinds.setdefault(name.split(" ")[0], []).append(cpu)
    shares = {f"core_{kind}": max(its) / seconds for kind, its in kinds.items()}
    per_job = {f"us_{kind}": sum(its) / (rate * seconds) * 1e6 for kind, its in kinds.items()}
    return {"per_s": rate, "cores_used": sum(used.values()) / seconds} | shares | per_job


async def chunk_cost(calls: int = 400, bundle: int = 64) -> float:
    """Return the server's CPU time for one chunk of a stream, in microseconds, published in bundles."""
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as url:
        settings = load_settings(CONFIG, environ={}, flags={"redis.url": url}).settings
        client = connect(settings.redis)
        queue = JobQueue(client, settings)
        incoming = Incoming(endpoint=Endpoint.COMPLETIONS, body=msgspec.json.encode(BODY), headers={}, request_id="s")
        await queue.submit([accept(incoming, settings, reply_to="bl:reply:s").submission for _ in range(bundle)])
        jobs = (await queue.claim("w", "bench", "int4", claim_plan(settings, "bench", "int4"), bundle)).jobs
        data = b'data: {"id":"echo-0","object":"text_completion","choices":[{"index":0,"text":"word "}]}\n\n'
        pid = int((await client.info("server"))["process_id"])
        used = cpu_s(pid)
        for number in range(1, calls + 1):
            await queue.emit("w", [(job.job_id, Chunk(fence=job.fence, number=number, data=data)) for job in jobs])
        used = cpu_s(pid) - used
        await client.aclose()
    return used / (calls * bundle) * 1e6


def capacity(rows: Mapping[str, Figures], chunk_us: float) -> Figures:
    """Return what one primary carries, by its CPU time per job, and how many GPUs that keeps busy."""
    row = rows["drain, 2 worker processes"]
    job_us = row["submit_server_us"]["median"] + row["us_valkey"]["median"]
    streamed_us = job_us + TOKENS_PER_REQUEST * chunk_us
    found: Figures = {"job_us": job_us, "chunk_us": chunk_us, "planned_use": PLANNED_USE}
    for name, cost_us in (("whole answers", job_us), ("streams", streamed_us)):
        rate = 1e6 / cost_us * PLANNED_USE
        found[name] = {"jobs_per_s": rate, "gpus": rate / REQUESTS_PER_S_OF_A_GPU}
    return found


if __name__ == "__main__":
    main()
