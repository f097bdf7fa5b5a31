"""The HTTP path under wrk, with echo workers: beside the same app without a queue, and beside LiteLLM's proxy.

`python -m benchmarks.intake`. All servers stand side by side and are loaded in turns.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import redis

from benchmarks.harness import (
    CONFIG,
    Figures,
    arguments,
    percentile,
    process,
    save,
    say,
    spread_of,
    target,
    wait_for,
)
from benchmarks.load import wrk
from benchmarks.peers.base import cpu_s, prompts
from benchmarks.servers import litellm_proxy
from benchmarks.servers.stacks import stack
from bitladder.cli.private_stack import free_port
from bitladder.endpoints import Endpoint
from bitladder.routing.accept import Incoming, accept
from bitladder.routing.prompt_parts import byte_entropy
from bitladder.settings.load import load_settings

PROMPT = prompts(1)[0]
COMPLETION = msgspec.json.encode({"model": "bench", "prompt": PROMPT, "max_tokens": 16})
CHAT = msgspec.json.encode({"model": "smollm2", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 16})
# Connections at which the servers are driven to their limit.
CONNECTIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One route of one system, and the processes whose CPU time it costs."""

    name: str
    url: str
    body: bytes
    pids: Mapping[str, int]


def main() -> None:
    """Measure and write the figures."""
    options = arguments(__doc__)
    seconds, rounds, calls = (2, 1, 2_000) if options.short else (5, 5, 20_000)
    routing = measure_routing(calls)
    samples: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as (endpoints, client):
        for endpoint in endpoints:
            wrk.load(endpoint.url, endpoint.body, connections=CONNECTIONS, seconds=2)  # warm
        for number in range(rounds):
            for endpoint in endpoints:
                figures = saturate(endpoint, seconds)
                samples.setdefault(endpoint.name, []).append(figures)
                wait_for(lambda: _queued(client) == 0, "the queue is empty", 120)
                say(f"{number + 1}/{rounds} {endpoint.name}: {figures['requests_per_s']:,.0f}/s")
        rows = {name: spread_of(its) for name, its in samples.items()}
        half = half_load(endpoints, rows["bitladder, awaited"]["requests_per_s"]["median"] / 2, seconds, rounds)
    whole = {"routing": routing, "rows": rows, "half_load": half, "connections": CONNECTIONS}
    save("intake", whole | {"targets": targets(routing, rows, half)}, options)


def measure_routing(calls: int) -> Figures:
    """Time score, policy and all else that the intake does to a body with a 2 KiB prompt, and the score alone."""
    settings = load_settings(CONFIG, environ={}).settings
    prompt = PROMPT * 2
    body = msgspec.json.encode({"model": "bench", "prompt": prompt, "max_tokens": 16})
    incoming = Incoming(endpoint=Endpoint.COMPLETIONS, body=body, headers={"x-priority": "5"}, request_id="r")
    text = prompt.encode()
    whole = _times_us(lambda: accept(incoming, settings), calls)
    score = _times_us(lambda: byte_entropy(text), calls)
    unique = _times_us(lambda: _entropy_by_unique(text), calls // 10)
    return {
        "prompt_bytes": len(text),
        "routing_p50_us": statistics.median(whole),
        "routing_p99_us": percentile(whole, 0.99),
        "score_p50_us": statistics.median(score),
        "np_unique_p50_us": statistics.median(unique),
    }


def _entropy_by_unique(text: bytes) -> float:
    _, counts = np.unique(list(text), return_counts=True)
    shares = counts / counts.sum()
    return -float((shares * np.log2(shares)).sum())


def _times_us(call: Callable[[], object], count: int) -> list[float]:
    for _ in range(200):
        call()
    taken = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[Sequence[Handler], redis.Redis]]:
    """Run an intake with one echo worker, the floor, and LiteLLM's proxy before an upstream that answers at once."""
    floor, upstream, proxy = (free_port() for _ in range(3))
    with contextlib.ExitStack() as block:
        running = block.enter_context(stack("int4", {"BITLADDER_CONFIG": CONFIG}))

        def run(*command: str, env: Mapping[str, str] | None = None) -> int:
            return block.enter_context(process(command, env)).pid

        python = sys.executable
        floor_pid = run(python, "-m", "benchmarks.servers.floor_app", str(floor))
        run(python, "-m", "benchmarks.servers.mock_openai", str(upstream))
        command, own = litellm_proxy.command(proxy, f"http://127.0.0.1:{upstream}", folder)
        proxy_pid = run(*command, env=own)
        litellm_proxy.wait_ready(f"http://127.0.0.1:{proxy}", 120)
        client = redis.Redis.from_url(running.redis_url)
        ours = {name.partition(" ")[0]: pid for name, pid in running.pids.items()}
        base = f"{running.urls[0]}/v1"
        yield (
            [
                Handler(name="bitladder, awaited", url=f"{base}/completions", body=COMPLETION, pids=ours),
                Handler(name="bitladder, jobs", url=f"{base}/jobs", body=COMPLETION, pids=ours),
                Handler(
                    name="floor: the same app without a queue",
                    url=f"http://127.0.0.1:{floor}/v1/completions",
                    body=COMPLETION,
                    pids={"app": floor_pid},
                ),
                Handler(
                    name="LiteLLM proxy",
                    url=f"http://127.0.0.1:{proxy}/v1/chat/completions",
                    body=CHAT,
                    pids={"proxy": proxy_pid},
                ),
            ],
            client,
        )


def saturate(endpoint: Handler, seconds: float) -> Figures:
    """Load one endpoint as hard as its connections can."""
    before = {name: cpu_s(pid) for name, pid in endpoint.pids.items()}
    seen = wrk.load(endpoint.url, endpoint.body, connections=CONNECTIONS, seconds=seconds)
    if seen.errors:
        raise RuntimeError(f"{endpoint.name}: {seen.errors} of {seen.requests} requests failed")
    used = {f"cpu_us_{name}": (cpu_s(pid) - before[name]) / seen.requests * 1e6 for name, pid in endpoint.pids.items()}
    return _seen(seen) | used | {"per_core": 1e6 / sum(used.values())}


def _seen(load: wrk.Load) -> Figures:
    return {"requests_per_s": load.requests_per_s, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms}


def half_load(endpoints: Sequence[Handler], rate: float, seconds: float, rounds: int) -> Figures:
    """Load the queue and the floor with the same rate, half of what the queue can, in turns."""
    found: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for endpoint in (endpoints[0], endpoints[2]):
            seen = wrk.load(
                endpoint.url,
                endpoint.body,
                connections=CONNECTIONS,
                seconds=seconds,
                think_ms=CONNECTIONS / rate * 1000,
            )
            found.setdefault(endpoint.name, []).append(_seen(seen))
    rows = {name: spread_of(its) for name, its in found.items()}
    queue, floor = (rows[endpoint.name] for endpoint in (endpoints[0], endpoints[2]))
    added = {f"added_{key}": queue[key]["median"] - floor[key]["median"] for key in ("p50_ms", "p99_ms")}
    return {"asked_per_s": rate, "rows": rows} | added


def targets(routing: Figures, rows: Mapping[str, Figures], half: Figures) -> list[Figures]:
    """Hold the figures against what was asked for."""
    own, peer = rows["bitladder, awaited"], rows["LiteLLM proxy"]

    def ratio(key: str) -> float:
        return float(own[key]["median"] / peer[key]["median"])

    return [
        target("routing a 2 KiB prompt, p99, us", routing["routing_p99_us"], 50, at_most=True),
        target("score, times faster than np.unique", routing["np_unique_p50_us"] / routing["score_p50_us"], 20),
        target("awaited requests per core, of LiteLLM's", ratio("per_core"), 5),
        target("awaited p50, of LiteLLM's", ratio("p50_ms"), 1, at_most=True),
        target("awaited p99, of LiteLLM's", ratio("p99_ms"), 1, at_most=True),
        target("added at half load, p50, ms", half["added_p50_ms"], 3, at_most=True),
        target("added at half load, p99, ms", half["added_p99_ms"], 10, at_most=True),
    ]


def _queued(client: redis.Redis) -> int:
    return sum(int(client.llen(key)) for key in client.keys("rq:queue:*"))


if __name__ == "__main__":
    main()
