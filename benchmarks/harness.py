"""What every benchmark needs: a private Valkey, processes that end with the block, medians, a JSON file, a table."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from bitladder.cli.private_stack import free_port
from bitladder.queue.server.embedded import server_command
from bitladder.settings.redis_section import RedisSettings

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "benchmarks" / "servers" / "bench.toml")
Figures = dict[str, Any]


def arguments(description: str | None) -> argparse.Namespace:
    """Read the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--short", action="store_true", help="one repetition of less: to see it run, not to publish")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench", help="folder for the JSON file")
    parser.add_argument("--only", help="a part of the names of what is measured", default="")
    # As Ctrl-C does: what was started runs in sessions of its own, and must end with this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return parser.parse_args()


@contextlib.contextmanager
def valkey(folder: Path, *, append_only: bool = False) -> Iterator[str]:
    """Run a private Valkey on a free port; yields its URL. Without persistence unless asked for."""
    settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder))
    command = server_command(settings)
    command[command.index("--appendonly") + 1] = "yes" if append_only else "no"
    with process(command):
        client = redis.Redis.from_url(settings.url)
        wait_for(lambda: _answers(client), "Valkey answers")
        client.close()
        yield settings.url


@contextlib.contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, is_talked_to: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in the background while the block runs; then SIGTERM, and SIGKILL if that does not end it."""
    pipe = subprocess.PIPE if is_talked_to else subprocess.DEVNULL
    env = os.environ | dict(environment or {})  # noqa: TID251  (a benchmark is its own program)
    started = subprocess.Popen(  # noqa: S603  (our own commands)
        command,
        env=env,
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # some workers leave children behind: the whole group is ended
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def demo_prompts() -> list[str]:
    """Return the prompts of the demo."""
    lines = (ROOT / "bitladder" / "cli" / "demo" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def ask(command: Sequence[str], environment: Mapping[str, str], timeout_s: float = 600) -> Figures:
    """Run a program that prints its figures as the last line of its output.

    Raises:
        RuntimeError: it failed; the message ends with what it said.

    """
    env = os.environ | dict(environment)  # noqa: TID251  (a benchmark is its own program)
    done = subprocess.run(  # noqa: S603  (our own commands)
        command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def wait_for(condition: Callable[[], object], description: str, timeout_s: float = 60) -> None:
    """Wait until `condition()` is true.

    Raises:
        RuntimeError: it is not in time.

    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not in {timeout_s:g} s: {description}")
        time.sleep(0.01)


def spread(values: Sequence[float]) -> Figures:
    """Return median, least and greatest of the repetitions."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "all": list(values)}


def spread_of(rounds: Sequence[Figures]) -> Figures:
    """Return the spread of each figure over the repetitions."""
    return {key: spread([one[key] for one in rounds]) for key in rounds[0]}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie, by the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def target(name: str, measured: float, bound: float, *, at_most: bool = False) -> Figures:
    """Return one target with its verdict."""
    met = measured <= bound if at_most else measured >= bound
    return {"target": name, "bound": bound, "at_most": at_most, "measured": measured, "met": met}


def save(name: str, figures: Figures, options: argparse.Namespace) -> None:
    """Write the figures with machine and date, and show the targets."""
    options.out.mkdir(parents=True, exist_ok=True)
    whole = {"benchmark": name, "short": options.short, "machine": machine()} | figures
    path: Path = options.out / f"{name}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    for row in figures.get("targets", ()):
        sign = "<=" if row["at_most"] else ">="
        say(f"{'met   ' if row['met'] else 'MISSED'} {row['target']}: {row['measured']:.3g} ({sign} {row['bound']:g})")
    say(f"-> {path}")


def machine() -> Figures:
    """Return where and when this is measured."""
    models = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    memory_kib = [line.split()[1] for line in _read("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory_kib[0]) / 2**20) if memory_kib else None,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def say(text: str) -> None:
    """Tell the person who waits how far it is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _read(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8").splitlines()
    return []


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError, OSError):
        return bool(client.ping())
    return False
