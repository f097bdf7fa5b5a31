"""A machine's GPUs for tests: an executable that answers as nvidia-smi did on such a machine."""

from __future__ import annotations

from pathlib import Path

# Answers to --query-gpu=index,uuid,name,compute_cap,memory.total,memory.used,driver_version, without header and units.
H200 = "0, GPU-3d2f1c3a-8f0e-6a10-5b7e-0f2d6c1c9a11, NVIDIA H200, 9.0, 143771, 4, 570.133.20\n"
A10G = "0, GPU-1f9b6a52-5c1c-7b7e-9d5e-2b3c4d5e6f70, NVIDIA A10G, 8.6, 23028, 0, 550.90.07\n"
A100_AND_L4 = (
    "0, GPU-aaaaaaaa-0000-0000-0000-000000000000, NVIDIA A100-SXM4-80GB, 8.0, 81920, 0, 550.90.07\n"
    "1, GPU-bbbbbbbb-0000-0000-0000-000000000000, NVIDIA L4, 8.9, 23034, 0, 550.90.07\n"
)


def install_nvidia_smi(folder: Path, answer: str, status: int = 0) -> str:
    """Write the executable; return the PATH that has it in front of the machine's own programs."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\nexit {status}\n", encoding="utf-8")
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def quantized(weights: tuple[str, int], inputs: tuple[str, int] | None) -> dict[str, object]:
    """Return a config.json as llm-compressor writes it: type and bits of weights and of activations."""
    kinds = [kind and {"type": kind[0], "num_bits": kind[1]} for kind in (weights, inputs)]
    group = {"targets": ["Linear"], "weights": kinds[0], "input_activations": kinds[1]}
    return {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}}
