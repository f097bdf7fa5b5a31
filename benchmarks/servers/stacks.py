"""What stands under a measurement: an intake, workers, a real vLLM server on the CPU or the GPU of this machine."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import redis

from benchmarks.harness import ROOT, process, valkey, wait_for
from bitladder.cli.private_stack import free_port
from bitladder.settings.load import load_settings
from workers.engines.hardware.cpu import dtype_args
from workers.engines.vllm_server import ENVIRONMENT, MODULE, checkpoint_path

EXAMPLE = str(ROOT / "bitladder.toml")
TIER = "int8"  # the tier of the example that every processor has a kernel for


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The processes of one stack."""

    urls: Sequence[str]  # of the intakes
    redis_url: str
    pids: Mapping[str, int]


@contextlib.contextmanager
def stack(
    tier: str, environment: Mapping[str, str], *, workers: int = 1, intakes: int = 1, start_s: float = 60
) -> Iterator[Running]:
    """Run Valkey, intakes and workers of one tier; `environment` says the rest. Yields when the workers are live."""
    with contextlib.ExitStack() as block:
        folder = Path(block.enter_context(tempfile.TemporaryDirectory()))
        redis_url = block.enter_context(valkey(folder))
        client = redis.Redis.from_url(redis_url)
        env = {**environment, "BITLADDER_REDIS__URL": redis_url, "BITLADDER_POLICY__NAME": f"fixed:{tier}"}
        env["BITLADDER_INTAKE__LAME_DUCK_S"] = "0"  # nobody is to turn to another one when it is stopped
        pids = {"valkey": int(client.info("server")["process_id"])}
        ports = [free_port() for _ in range(intakes)]
        for number, port in enumerate(ports, 1):
            command = [sys.executable, "-P", "-m", "bitladder.cli.main", "serve", "--port", str(port)]
            pids[f"intake {number}"] = block.enter_context(process(command, env)).pid
        for number in range(1, workers + 1):
            command = [sys.executable, "-P", "-m", "workers", "--tier", tier]
            pids[f"worker {number}"] = block.enter_context(process(command, env)).pid
        for port in ports:
            wait_for(partial(is_up, f"http://127.0.0.1:{port}/readyz"), "the intake answers", start_s)
        wait_for(lambda: _live(ports[0], tier) >= workers, "the workers are live", start_s)
        yield Running(urls=[f"http://127.0.0.1:{port}" for port in ports], redis_url=redis_url, pids=pids)


@contextlib.contextmanager
def vllm_server(arguments: Sequence[str] = ()) -> Iterator[str]:
    """Run vLLM's own server on the example's checkpoint with the example's settings; yields its URL."""
    settings = load_settings(EXAMPLE).settings
    path = checkpoint_path(settings.model("smollm2").tier(TIER), settings.vllm)
    port = free_port()
    given = (*settings.vllm.args, *arguments)
    command = [
        str(ROOT / settings.vllm.python) if settings.vllm.python else sys.executable,
        *("-m", MODULE, "--model", str(path), "--served-model-name", "smollm2"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *given,
        *dtype_args(given),
    ]
    with process(command, ENVIRONMENT | settings.vllm.environment) as server:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: server.poll() is not None or is_up(f"{url}/health"), "vLLM answers", 300)
        if server.poll() is not None:
            raise RuntimeError(f"vLLM ended with status {server.returncode}: {' '.join(command)}")
        yield url


def remote(url: str) -> dict[str, str]:
    """Return the settings of a worker before a server that is there already."""
    return {
        "BITLADDER_CONFIG": EXAMPLE,
        "BITLADDER_WORKER__ENGINE": "remote",
        f"BITLADDER_MODELS__SMOLLM2__TIERS__{TIER.upper()}__URL": url,
    }


def is_up(url: str) -> bool:
    """Return whether a GET answers 200."""
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=2).status_code == 200
    return False


def _live(port: int, tier: str) -> int:
    tiers = httpx2.get(f"http://127.0.0.1:{port}/v1/queues", timeout=5).json()["data"][0]["tiers"]
    return int(next(its["live_workers"] for its in tiers if its["tier"] == tier))
