"""The arguments of vLLM on a processor, where its own choices are slow, or end it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.engines.hardware.arguments import has_flag

# What the drivers of NVIDIA and AMD make where there is a GPU.
_GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
# What says how prompts are read: with few tokens in a step, vLLM does not start unless it may read them in parts.
_READING = ("--enable-chunked-prefill", "--no-enable-chunked-prefill", "--max-num-batched-tokens")


def prefill_args(args: tuple[str, ...], *, gpus: Sequence[Path] = _GPUS) -> list[str]:
    """Return what lets prompts be read whole on a processor, unless the arguments say how they are read.

    Of a prompt that is read in parts, vLLM draws a token too early and takes it back: it winds back the generator of
    the request's `seed`, which a processor's cannot, so that one request with a seed ends the engine
    (vllm/v1/worker/gpu_model_runner.py, vLLM 0.32: "CPU Generator does not use offset").
    """
    is_chosen = any(gpu.exists() for gpu in gpus) or has_flag(args, *_READING)
    return [] if is_chosen else ["--no-enable-chunked-prefill"]


def dtype_args(
    args: tuple[str, ...], *, cpuinfo: Path = Path("/proc/cpuinfo"), gpus: Sequence[Path] = _GPUS
) -> list[str]:
    """Return `--dtype float32` for a processor without AVX-512, unless the arguments name a dtype.

    Such a processor has no bf16 arithmetic: vLLM emulates it, at a third of float32's speed (docs/log.md). float32
    represents the values of a bf16 checkpoint exactly.
    """
    if any(gpu.exists() for gpu in gpus) or has_flag(args, "--dtype"):
        return []
    try:
        has_avx512 = "avx512f" in cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return []
    return [] if has_avx512 else ["--dtype", "float32"]
