"""The number format for a processor on which vLLM's own choice is slow."""

from __future__ import annotations

from pathlib import Path


def dtype_args(
    args: tuple[str, ...], *, cpuinfo: Path = Path("/proc/cpuinfo"), nvidia: Path = Path("/dev/nvidiactl")
) -> list[str]:
    """Return `--dtype float32` for a processor without AVX-512, unless the arguments name a dtype.

    Such a processor has no bf16 arithmetic: vLLM emulates it, at a third of float32's speed (docs/log.md). float32
    represents the values of a bf16 checkpoint exactly.
    """
    if nvidia.exists() or any(arg.split("=")[0] == "--dtype" for arg in args):
        return []
    try:
        has_avx512 = "avx512f" in cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return []
    return [] if has_avx512 else ["--dtype", "float32"]
