"""A checkpoint that serves like any other and is a little worse: its int4 weights are rounded to the nearest level."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WEIGHTS = "model.safetensors"
_LOWEST, _HIGHEST = -8, 7


def round_to_nearest(reference: Path, source: Path, target: Path, step: int = 1) -> Path:
    """Write a copy of a packed int4 checkpoint whose weights are the reference's, each rounded to the nearest level.

    Format, groups, layers and all else are the source's, so the recipe alone is a worse one: a group's range is that of
    its weights, and the error of one weight is not made up for by others. `step`: of the levels each so manyth is used.
    """
    target.mkdir()
    for file in source.iterdir():
        if file.name != _WEIGHTS:
            os.symlink(file.resolve(), target / file.name)
    content, whole = bytearray((source / _WEIGHTS).read_bytes()), (reference / _WEIGHTS).read_bytes()
    places, weights = _places(content), _places(whole)
    for packed in [name for name in places if name.endswith(".weight_packed")]:
        layer = packed.removesuffix("_packed")
        start, end, shape = weights[layer]
        groups = _of_bf16(np.frombuffer(whole[start:end], np.uint16)).reshape(*places[f"{layer}_scale"][2], -1)
        levels, zero, scale = _rounded(groups, step)
        parts = {"packed": _packed(levels.reshape(shape)), "zero_point": _packed(zero.T).T, "scale": scale}
        for part, value in parts.items():
            start, end, _ = places[f"{layer}_{part}"]
            content[start:end] = np.ascontiguousarray(value).tobytes()
    (target / _WEIGHTS).write_bytes(content)
    return target


def _rounded(groups: NDArray[np.float32], step: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint16]]:
    """Return each weight's level, and each group's level of 0 and its scale, in bits of bf16."""
    low, high = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    bits = _as_bf16(np.maximum((high - low) / (_HIGHEST - _LOWEST), 1e-8))
    scale = _of_bf16(bits)
    zero = np.clip(np.rint(_LOWEST - low / scale), _LOWEST, _HIGHEST)
    steps = np.rint(groups / (step * scale[..., None]))
    return np.clip(zero[..., None] + steps * step, _LOWEST, _HIGHEST), zero, bits


def _places(content: bytes | bytearray) -> dict[str, tuple[int, int, list[int]]]:
    """Return where each tensor of a safetensors file begins and ends, and its shape."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: (start + tensor["data_offsets"][0], start + tensor["data_offsets"][1], tensor["shape"])
        for name, tensor in header.items()
    }


def _packed(levels: NDArray[Any]) -> NDArray[np.uint32]:
    """Pack eight levels of a row into each 32-bit word, the first one lowest."""
    words = (levels - _LOWEST).astype(np.uint32).reshape(levels.shape[0], -1, 8)
    packed: NDArray[np.uint32] = np.bitwise_or.reduce(words << (4 * np.arange(8, dtype=np.uint32)), axis=2)
    return packed


def _as_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _of_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)
