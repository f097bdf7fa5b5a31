"""Whether anybody waits longer for a shadow: `python -m benchmarks.control.shadow_beside_traffic [--out FOLDER]`.

Valkey, an intake and one worker each of two tiers, as processes. The workers' engine is the echo engine on a service
curve, so that a request in a free slot does slow the others. Clients come at random times to the reference tier, at
70 % and at 100 % of its capacity, with and without `calibrate shadow --every 1s` beside them, in the order A B B A, the
same times of arrival in each run. The shadow always has more to label than it gets done.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.harness import (
    ROOT,
    Figures,
    arguments,
    percentile,
    process,
    save,
    say,
    spread,
    target,
    valkey,
    wait_for,
)
from benchmarks.load import open_loop
from benchmarks.servers.stacks import is_up
from bitladder.cli.private_stack import free_port

SLOTS, TOKENS = 16, 32
# Seconds to the first token of 100 prompt tokens, and per token, by requests at once.
POINTS = ((1, 0.10, 0.030), (4, 0.12, 0.033), (16, 0.20, 0.050))
LOADS = (0.7, 1.0)
SEEDS = 400
WITHIN = 1.05


@dataclass(frozen=True, slots=True)
class Stack:
    """What is measured on."""

    url: str
    environment: Mapping[str, str]
    captured: Path  # prompts that int4 has served


def main() -> None:
    """Measure every load with and without a shadow."""
    options = arguments(__doc__)
    seconds, order = (8.0, "AB") if options.short else (40.0, "ABBA")
    rate = capacity()
    rows: dict[str, Figures] = {}
    with stack() as running:
        rows["idle"] = {"shadow": measure(running, 0, seconds, with_shadow=True)}
        for load in LOADS:
            runs: dict[bool, list[Figures]] = {False: [], True: []}
            for letter in order:
                runs[letter == "B"].append(measure(running, load * rate, seconds, with_shadow=letter == "B"))
                say(f"{load:.0%} {'with' if letter == 'B' else 'without'}: {runs[letter == 'B'][-1]}")
            rows[f"{load:.0%}"] = row(runs[False], runs[True])
    targets = [
        target(
            f"p95 at {name} of the capacity, with a shadow as without", rows[name]["p95_ratio"], WITHIN, at_most=True
        )
        for name in rows
        if name != "idle"
    ]
    setting = {
        "slots": SLOTS,
        "tokens": TOKENS,
        "points": POINTS,
        "requests_per_s": rate,
        "seconds": seconds,
        "seed": 7,
    }
    load_average = os.getloadavg()[0]
    save("shadow", {"load_average": load_average, "setting": setting, "rows": rows, "targets": targets}, options)


def capacity() -> float:
    """Return how many requests a second a full batch answers."""
    slots, ttft_s, token_s = POINTS[-1]
    return slots / (ttft_s + (TOKENS - 1) * token_s)


def row(without: list[Figures], with_shadow: list[Figures]) -> Figures:
    """Return one load: latencies of both, and the ratio of their medians."""
    both = {
        name: {figure: spread([run[figure] for run in runs]) for figure in ("p50_s", "p95_s")}
        for name, runs in (("without", without), ("with", with_shadow))
    }
    ratio = both["with"]["p95_s"]["median"] / both["without"]["p95_s"]["median"]
    return both | {"p95_ratio": ratio, "runs": {"without": without, "with": with_shadow}}


def measure(running: Stack, rate: float, seconds: float, *, with_shadow: bool) -> Figures:
    """Return the latencies of one run, and what the shadow did meanwhile."""
    with ExitStack() as block:
        folder = Path(block.enter_context(tempfile.TemporaryDirectory()))
        started_s = time.time()
        if with_shadow:
            shutil.copytree(running.captured, folder / "capture")
            block.enter_context(process(command(running, folder), running.environment))
            wait_for(lambda: (folder / "shadow" / "progress.json").exists(), "the shadow works")
        if rate:
            rows = asyncio.run(open_loop.main(f"{running.url}/v1/completions", rate, seconds, 86_400_000, TOKENS))
        else:
            rows = []
            time.sleep(seconds)
        spent = json.loads((folder / "shadow" / "progress.json").read_text()) if with_shadow else {}
        labels = folder / "shadow" / "labels.jsonl"
        answered = sorted(row[2] for row in rows if row[1] == 200)
        figures: Figures = {"requests": len(rows), "answered": len(answered), "seconds": time.time() - started_s}
        if answered:
            figures |= {"p50_s": percentile(answered, 0.5), "p95_s": percentile(answered, 0.95)}
        if with_shadow:
            figures["labels"] = len(labels.read_text().splitlines()) if labels.exists() else 0
            figures["shadow_requests"] = spent["ledger"]["total"]["requests"]
            figures["withdrawn"] = spent["counts"]["interrupted"]
    wait_for(lambda: not busy(running.url), "all has ended")
    return figures


def command(running: Stack, folder: Path) -> list[str]:
    options = {"--out": folder / "shadow", "--capture": folder / "capture", "--url": running.url, "--every": "1s"}
    words = [word for name, value in options.items() for word in (name, str(value))]
    return [sys.executable, "-P", "-m", "calibration", "shadow", "--share", "1", "--max-wait", "5s", *words]


def busy(url: str) -> bool:
    tiers = httpx2.get(f"{url}/v1/queues", timeout=10).json()["data"][0]["tiers"]
    return any(tier["depth"] or tier["in_flight"] for tier in tiers)


@contextmanager
def stack() -> Iterator[Stack]:
    """Run the processes, and let int4 serve what the shadow will label."""
    with ExitStack() as block:
        folder = Path(block.enter_context(tempfile.TemporaryDirectory()))
        points = [dict(zip(("concurrency", "ttft_s", "time_per_token_s"), point, strict=True)) for point in POINTS]
        about = {"source": "made up", "device": "none", "version": "1", "mode": "benchmark", "input_tokens": 100}
        named = [{"name": tier, **about, "points": points} for tier in ("int4", "fp8")]
        (folder / "curves.json").write_text(json.dumps({"curves": named}))
        port = free_port()
        environment = {
            "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
            "BITLADDER_REDIS__URL": block.enter_context(valkey(folder)),
            "BITLADDER_POLICY__NAME": "fixed:fp8",
            "BITLADDER_WORKER__ENGINE": "echo",
            "BITLADDER_ECHO__CURVES": str(folder / "curves.json"),
            "BITLADDER_CAPTURE__SHARE": "1",
            "BITLADDER_CAPTURE__FOLDER": str(folder / "capture"),
            "BITLADDER_INTAKE__LAME_DUCK_S": "0",
            "BITLADDER_INTAKE__PORT": str(port),
            "BITLADDER_PUBLISH__FILE": "",
        }
        url = f"http://127.0.0.1:{port}"
        block.enter_context(process([sys.executable, "-P", "-m", "bitladder.cli.main", "serve"], environment))
        for tier in ("int4", "fp8"):
            block.enter_context(process([sys.executable, "-P", "-m", "workers", "--tier", tier], environment))
        wait_for(lambda: is_up(f"{url}/readyz"), "the intake answers")
        wait_for(lambda: live(url) == 2, "the workers are live")
        asyncio.run(seed(url))
        wait_for(lambda: written(folder / "capture") >= SEEDS, "what int4 served is captured")
        shutil.copytree(folder / "capture", folder / "seeds")
        yield Stack(url, environment, folder / "seeds")


def live(url: str) -> int:
    tiers = httpx2.get(f"{url}/v1/queues", timeout=10).json()["data"][0]["tiers"]
    return sum(tier["live_workers"] for tier in tiers)


async def seed(url: str) -> None:
    """Let int4 answer the prompts that are to be labelled."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        at_once = asyncio.Semaphore(SLOTS)

        async def ask(number: int) -> None:
            body = {"model": "smollm2", "prompt": f"count {number} to a hundred and back", "max_tokens": 4}
            async with at_once:
                (await http.post("/v1/completions", json=body, headers={"X-Max-Tier": "int4"})).raise_for_status()

        await asyncio.gather(*map(ask, range(SEEDS)))


def written(folder: Path) -> int:
    return sum(path.read_text().count('"served"') for path in folder.glob("*.jsonl"))


if __name__ == "__main__":
    main()
