"""A checkpoint that serves like any other and is bad: its 8-bit weights were rounded to a few levels."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np

_WEIGHTS = "model.safetensors"


def plant(source: Path, target: Path, step: int) -> Path:
    """Write a copy whose weights of type I8 are multiples of `step`; all else is linked."""
    target.mkdir()
    for file in source.iterdir():
        if file.name != _WEIGHTS:
            os.link(file, target / file.name) if file.stat().st_dev == target.stat().st_dev else (
                target / file.name
            ).write_bytes(file.read_bytes())
    content = bytearray((source / _WEIGHTS).read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    start = 8 + length
    for name, tensor in json.loads(content[8:start]).items():
        if name != "__metadata__" and tensor["dtype"] == "I8":
            first, end = (start + offset for offset in tensor["data_offsets"])
            weights = np.frombuffer(content, np.int8, end - first, first)
            rounded = np.clip(np.rint(weights.astype(np.float32) / step) * step, -127, 127)
            content[first:end] = rounded.astype(np.int8).tobytes()
    (target / _WEIGHTS).write_bytes(content)
    return target
