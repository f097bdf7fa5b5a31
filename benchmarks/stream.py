"""Token streams through the queue: beside vLLM's own server, then 200 at once: `python -m benchmarks.stream`."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import uvloop

from benchmarks.harness import CONFIG, Figures, arguments, ask, percentile, save, say, target
from benchmarks.load.client import Times, opened, read_stream
from benchmarks.peers.base import cpu_s
from benchmarks.servers.stacks import TIER, Running, remote, stack, vllm_server

STREAMS = 200
CLIENTS = 2  # processes that share the streams: one would be late itself
TOKENS_PER_S = 30
TTFT_MS = 50
START_S = 3  # for the clients' imports
# A stream is in time when it takes no longer than this, of what the engine itself needs.
IN_TIME = 1.05
# One at a time, and a few at once: what a batching engine does between their tokens.
AT_ONCE = (1, 4)


def main() -> None:
    """Measure both and write the figures."""
    options = arguments(__doc__)
    rounds, tokens = (6, 60) if options.short else (50, 150)
    with vllm_server() as engine, stack(TIER, remote(engine)) as running:
        added = {
            f"{count} at once": uvloop.run(beside_vllm(engine, running.urls[0], rounds, count)) for count in AT_ONCE
        }
    echo = {
        "BITLADDER_CONFIG": CONFIG,
        "BITLADDER_ECHO__TTFT_MS": str(TTFT_MS),
        "BITLADDER_ECHO__TOKENS_PER_S": str(TOKENS_PER_S),
    }
    with stack("int4", echo) as running:
        many = at_once(running, tokens)
    one = added["1 at once"]
    save(
        "stream",
        {
            "added": added,
            "many": many,
            "rows": rows_of(added),
            "targets": [
                target("added time to first token, p50, ms", one["added_ttft_p50_ms"], 5, at_most=True),
                target("added between tokens, p50, ms", one["added_gap_p50_ms"], 1, at_most=True),
                target("200 streams: tokens delivered, of those asked for", many["delivered_share"], 0.98),
                target("200 streams: lateness of a token, p99, ms", many["lateness_p99_ms"], 250, at_most=True),
            ],
        },
        options,
    )


async def beside_vllm(engine: str, queue: str, rounds: int, at_once: int) -> Figures:
    """Stream straight and through the queue, in turns."""
    found: dict[str, list[Times]] = {"direct": [], "queue": []}
    async with opened() as session:
        for number in range(-2, rounds):
            ways = [("direct", engine, 0), ("queue", queue, 1)]
            for name, url, way in ways if number % 2 else ways[::-1]:  # neither way is always the second
                bodies = [_body((number * at_once + index) * len(ways) + way) for index in range(at_once)]
                route = f"{url}/v1/completions"
                times = await asyncio.gather(*(read_stream(session, route, body) for body in bodies))
                if number >= 0:  # the first ones warm both ways
                    found[name] += times
    rows: Figures = {name: _times(its) for name, its in found.items()}
    say(f"{at_once} at once: {rows}")
    return rows | {f"added_{key}": rows["queue"][key] - rows["direct"][key] for key in rows["direct"]}


def _body(number: int) -> dict[str, object]:
    # Another prompt each time and each way: vLLM remembers the prefixes it has seen.
    prompt = f"{number}: write a short story about a lighthouse and its keeper."
    return {"model": "smollm2", "prompt": prompt, "max_tokens": 32, "temperature": 0, "ignore_eos": True}


def _times(streams: Sequence[Times]) -> Figures:
    ttfts_ms = [(times[1] - times[0]) * 1000 for times in streams]
    gaps_ms = [(late - early) * 1000 for times in streams for early, late in itertools.pairwise(times[1:])]
    return {
        "ttft_p50_ms": statistics.median(ttfts_ms),
        "ttft_p99_ms": percentile(ttfts_ms, 0.99),
        "gap_p50_ms": statistics.median(gaps_ms),
        "gap_p99_ms": percentile(gaps_ms, 0.99),
    }


def at_once(running: Running, tokens: int) -> Figures:
    """Read STREAMS streams at once, and hold every token against its schedule."""
    command = [sys.executable, "-m", "benchmarks.load.client", f"{running.urls[0]}/v1/completions"]
    ask([*command, "20", "10", "0"], {})  # connections and code are warm
    before = {name: cpu_s(pid) for name, pid in running.pids.items()}
    share = [*command, str(STREAMS // CLIENTS), str(tokens), str(time.perf_counter() + START_S)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _: ask(share, {}), range(CLIENTS)))
    used = {name: cpu_s(pid) - before[name] for name, pid in running.pids.items()}
    used["clients"] = sum(answer["cpu_s"] for answer in answers)
    found: list[Times] = [times for answer in answers for times in answer["times"]]
    figures = lateness(found, tokens) | {"cpu_s": used, "streams": STREAMS, "tokens": tokens}
    say(f"{STREAMS} at once: {figures}")
    return figures


def lateness(found: Sequence[Times], tokens: int) -> Figures:
    """Return how far the tokens lag behind TOKENS_PER_S, counted from each stream's first one."""
    if any(len(times) != tokens + 1 for times in found):
        raise RuntimeError(f"every stream must have {tokens} tokens, got {sorted({len(t) - 1 for t in found})}")
    late_ms = [
        (when - times[1] - index / TOKENS_PER_S) * 1000 for times in found for index, when in enumerate(times[1:])
    ]
    # While all of them run: from the last one's first token to the first one's last.
    start, end = max(times[1] for times in found), min(times[-1] for times in found)
    delivered = sum(start < when <= end for times in found for when in times[1:]) / (end - start)
    ttfts_ms = [(times[1] - times[0]) * 1000 for times in found]
    longest_s = IN_TIME * (TTFT_MS / 1000 + (tokens - 1) / TOKENS_PER_S)
    return {
        "in_time_share": sum(times[-1] - times[0] <= longest_s for times in found) / len(found),
        "tokens_per_s": delivered,
        "delivered_share": delivered / (len(found) * TOKENS_PER_S),
        "lateness_p50_ms": statistics.median(late_ms),
        "lateness_p99_ms": percentile(late_ms, 0.99),
        "ttft_p50_ms": statistics.median(ttfts_ms),
        "ttft_p99_ms": percentile(ttfts_ms, 0.99),
    }


def rows_of(added: Mapping[str, Figures]) -> Figures:
    """Return the rows of the table."""
    return {f"{way}, {count}": its[way] for count, its in added.items() for way in ("direct", "queue")}


if __name__ == "__main__":
    main()
