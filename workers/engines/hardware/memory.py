"""How much memory an engine asks for at its start, and how much less after a start without enough memory.

vLLM takes a share of the device's memory (--gpu-memory-utilization, on a processor too). In it vLLM needs room for one
request of the longest length (--max-model-len). The output of a failed start tells which of the two to lower.
Pure but for reading a checkpoint's config.json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from workers.engines.hardware.arguments import value_of

_UTILIZATION, _LENGTH = "--gpu-memory-utilization", "--max-model-len"
DEFAULT_UTILIZATION = 0.92  # vLLM 0.32's own
# 15 % less at a time finds a share that fits in few starts; below a tenth there is no room for weights.
_STEP, _MIN_UTILIZATION = 0.85, 0.10
# A shorter context is of no use: better no engine here, and the jobs served by the next tier up.
_MIN_LENGTH = 512
# Every try loads the weights anew.
_MAX_STEPS = 8

# Stands for the kernel's out-of-memory killer, which leaves nothing in the process's own output.
KILLED = "killed: out of memory"
# The share is more than the free memory. Checked first, because the output may have both kinds.
_TOO_LARGE = re.compile(
    r"less than desired [CG]PU memory utilization|allocation is less than requested memory for kv"
    r"|less than the engine's budget|out of memory|OutOfMemoryError|not enough GPU memory|bad_alloc"
    r"|Cannot allocate memory|DefaultCPUAllocator"
)
# The share is free, but beside the weights it is too small for the longest request.
_TOO_LONG = re.compile(r"larger than the available KV cache memory|No available memory for the cache blocks")
_ESTIMATE = re.compile(r"estimated maximum model length is (\d+)")


class Allowance:
    """What the next start asks for."""

    def __init__(self, configured: tuple[str, ...], checkpoint: Path) -> None:
        self._utilization = float(value_of(configured, _UTILIZATION) or DEFAULT_UTILIZATION)
        self._length = read_length(value_of(configured, _LENGTH)) or _longest_context(checkpoint)
        self._steps: dict[str, str] = {}
        self._count = 0

    def args(self) -> list[str]:
        """Return arguments that override the configured ones; none while nothing was lowered."""
        return [part for pair in self._steps.items() for part in pair]

    def as_text(self) -> str:
        """Return the same arguments as one text."""
        return " ".join(self.args())

    def lower(self, output: str) -> bool:
        """Ask for less, as the output of a failed start demands; False where that cannot help."""
        if self._count >= _MAX_STEPS:
            return False
        self._count += 1
        if _TOO_LARGE.search(output):
            return self._lower_utilization()
        return bool(_TOO_LONG.search(output)) and self._lower_length(output)

    def _lower_utilization(self) -> bool:
        lower = round(self._utilization * _STEP, 3)
        if lower < _MIN_UTILIZATION:
            return False
        self._utilization, self._steps[_UTILIZATION] = lower, str(lower)
        return True

    def _lower_length(self, output: str) -> bool:
        estimate = _ESTIMATE.search(output)
        lower = min(self._length // 2, int(estimate[1]) if estimate else self._length)
        if lower < _MIN_LENGTH:
            return False
        self._length, self._steps[_LENGTH] = lower, str(lower)
        return True


def read_length(value: str | None) -> int | None:
    """Read a length as vLLM does: 2048, 2k (thousand) or 2K (1024); None for `auto`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", value or "")
    if not match:
        return None
    return int(float(match[1]) * {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}[match[2]])


def _longest_context(checkpoint: Path) -> int:
    """Return the longest context that the checkpoint's configuration names."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", {})
    return int(config.get("max_position_embeddings") or text.get("max_position_embeddings") or 8192)
