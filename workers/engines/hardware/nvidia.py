"""Query nvidia-smi, if it is installed and answers."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FIELDS = "index,uuid,name,compute_cap,memory.total,memory.used,driver_version"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: str
    uuid: str
    name: str
    capability: int  # NVIDIA's compute capability, 8.9 as 89
    memory_bytes: int
    used_bytes: int
    driver: str


def ask(*query: str) -> str | None:
    """Return its answer as CSV without header or units; None where there is no such program or no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, *query, "--format=csv,noheader,nounits"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603  (fixed)
    except (OSError, subprocess.SubprocessError):  # a driver that hangs must not cost the evaluation
        return None
    return process.stdout


def seen_gpus(environment: Mapping[str, str]) -> list[Gpu]:
    """Return the GPUs that a process with this environment would use, in its order."""
    return visible(read_gpus(ask(f"--query-gpu={_FIELDS}") or ""), environment.get("CUDA_VISIBLE_DEVICES"))


def read_gpus(answer: str) -> list[Gpu]:
    """Read nvidia-smi's lines; one of another form is none of a GPU (a driver's message, [N/A])."""
    rows = [[field.strip() for field in row] for row in csv.reader(answer.splitlines())]
    return [gpu for row in rows if (gpu := _read(row))]


def visible(gpus: Sequence[Gpu], devices: str | None) -> list[Gpu]:
    """Return those that CUDA_VISIBLE_DEVICES names, by index or the beginning of their UUID; None: all of them.

    As CUDA does: what follows the first name that is none is not seen either. A part of a GPU (MIG-…) is not told from
    the others here: all are returned.
    """
    if devices is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for device in (part.strip() for part in devices.split(",")):
        if device.startswith("MIG-"):
            return list(gpus)
        named = [gpu for gpu in gpus if device == gpu.index or (device[:4] == "GPU-" and gpu.uuid.startswith(device))]
        if not named:
            break
        chosen += named[:1]
    return chosen


def _read(row: Sequence[str]) -> Gpu | None:
    try:
        index, uuid, name, capability, total, used, driver = row
        major, minor = capability.split(".")
        return Gpu(index, uuid, name, int(major) * 10 + int(minor), int(total) * _MIB, int(used) * _MIB, driver)
    except ValueError:
        return None
