"""Real vLLM through the queue and straight, on the same server in turns: `python -m benchmarks.engine`.

The worker's slots must keep the engine's batch full: adaptive ones are held against fixed numbers of them.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Mapping

import uvloop

from benchmarks.harness import Figures, arguments, demo_prompts, save, say, spread, spread_of, target
from benchmarks.load.client import opened, read_answer
from benchmarks.peers.base import cpu_s
from benchmarks.servers.stacks import TIER, remote, stack, vllm_server

CONCURRENCY = 32
BATCH = 16  # vLLM's --max-num-seqs: half of the concurrency, so that something always waits
TOKENS = 48
# least and most slots of the worker; the same number twice fixes them
SLOTS: Mapping[str, tuple[int, int]] = {
    "through the queue, adaptive slots": (1, 64),
    "through the queue, 1 slot": (1, 1),
    "through the queue, 8 slots": (8, 8),
    "through the queue, 64 slots": (64, 64),
}


def main() -> None:
    """Measure every setting in turns with the server alone, and write the figures."""
    options = arguments(__doc__)
    rounds, requests = (1, 32) if options.short else (3, 96)
    direct: list[Figures] = []
    rows: Figures = {}
    ratios: Figures = {}
    with vllm_server(["--max-num-seqs", str(BATCH)]) as engine:
        uvloop.run(drive(engine, requests))  # the first ones pay for the warm-up
        for name, slots in SLOTS.items():
            found, beside = in_turns(engine, slots, rounds, requests)
            direct += beside
            rows[name] = spread_of(found)
            pairs = zip(found, beside, strict=True)
            ratios[name] = spread([one["tokens_per_s"] / other["tokens_per_s"] for one, other in pairs])
            say(f"{name}: {ratios[name]['median']:.3f} of direct")
    rows = {"straight to vLLM": spread_of(direct)} | rows
    for name, its in ratios.items():
        rows[name]["of_direct"] = its
    adaptive = ratios["through the queue, adaptive slots"]["median"]
    targets = [target("output tokens/s through the queue, of vLLM's own", adaptive, 0.98)]
    save("engine", {"rows": rows, "concurrency": CONCURRENCY, "batch": BATCH, "targets": targets}, options)


def in_turns(engine: str, slots: tuple[int, int], rounds: int, requests: int) -> tuple[list[Figures], list[Figures]]:
    """Return the rounds through the queue, and those straight to the server that stood beside them."""
    limits = {
        "BITLADDER_WORKER__MIN_SLOTS": str(slots[0]),
        f"BITLADDER_MODELS__SMOLLM2__TIERS__{TIER.upper()}__SLOTS": str(slots[1]),
    }
    few = 16 if slots[1] == 1 else requests  # one at a time, each takes its own time however many there are
    through: list[Figures] = []
    straight: list[Figures] = []
    with stack(TIER, remote(engine) | limits) as running:
        if slots[0] != slots[1]:
            uvloop.run(drive(running.urls[0], requests))  # the limit finds the batch
        for _ in range(rounds):
            straight.append(uvloop.run(drive(engine, requests)))
            used = sum(cpu_s(pid) for pid in running.pids.values())
            figures = uvloop.run(drive(running.urls[0], few))
            own = sum(cpu_s(pid) for pid in running.pids.values()) - used
            through.append(figures | {"own_cpu_ms": own / few * 1000})
    return through, straight


async def drive(url: str, requests: int) -> Figures:
    """Keep CONCURRENCY requests under way until all are answered."""
    bodies = itertools.cycle(_bodies())
    waiting = iter([next(bodies) for _ in range(requests)])
    latencies: list[float] = []
    async with opened() as session:

        async def user() -> None:
            for body in waiting:
                latencies.append(await read_answer(session, f"{url}/v1/completions", body))

        start = time.perf_counter()
        await asyncio.gather(*(user() for _ in range(min(CONCURRENCY, requests))))
        seconds = time.perf_counter() - start
    return {"tokens_per_s": requests * TOKENS / seconds, "p50_ms": statistics.median(latencies) * 1000}


def _bodies() -> list[dict[str, object]]:
    # ignore_eos: every request makes the same number of tokens, whichever way it goes.
    common = {"model": "smollm2", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    return [common | {"prompt": prompt} for prompt in demo_prompts()]


if __name__ == "__main__":
    main()
