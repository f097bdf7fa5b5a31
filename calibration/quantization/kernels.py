"""Which kernels this machine has: they decide how a tier is stored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the instruction sets that the processor names; none where Linux does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def _has_nvidia_gpu(device: Path = Path("/dev/nvidiactl")) -> bool:
    return device.exists()


def can_serve(needed_cpu_flags: Iterable[str]) -> bool:
    """Tell whether vLLM has a kernel here that needs these instruction sets on a CPU; a GPU needs none of them."""
    return _has_nvidia_gpu() or set(needed_cpu_flags) <= _cpu_flags()
