"""Quantized numbers back to weights, a few rows at a time, as the engine's kernels would read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from calibration.inspection.scheme import Layout, Scheme
from calibration.inspection.tensor_file import CHUNK, Array, Tensor, chunks, whole

Floats = npt.NDArray[np.float32]
# AutoAWQ's order of the eight values of a word.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def weight_name(scheme: Scheme | None) -> str:
    """Return the suffix of the tensor that holds the values of a layer."""
    by_layout = {Layout.PACKED: "weight_packed", Layout.AWQ: "qweight"}
    return by_layout.get(scheme.layout, "weight") if scheme else "weight"


def scale_names(scheme: Scheme) -> tuple[str, ...]:
    if scheme.layout is Layout.AWQ:
        return ("scales",)
    return ("weight_scale", "input_scale") if scheme.is_input_static else ("weight_scale",)


def weights_of(module: str, scheme: Scheme | None, tensors: Mapping[str, Tensor]) -> Iterator[Floats]:
    """Yield the weights of a layer in rows as they are stored: outputs first, inputs first with AutoAWQ."""
    stored = tensors[f"{module}.{weight_name(scheme)}"]
    if scheme is None:
        yield from chunks(stored)
    elif scheme.layout is Layout.AWQ:
        yield from _awq(module, scheme, tensors)
    else:
        yield from _compressed(module, scheme, tensors)


def _awq(module: str, scheme: Scheme, tensors: Mapping[str, Tensor]) -> Iterator[Floats]:
    scales = whole(tensors[f"{module}.scales"])
    zeros = _words(whole(tensors[f"{module}.qzeros"]), scheme, _AWQ_ORDER)
    first = 0
    for rows in chunks(tensors[f"{module}.qweight"], CHUNK // scheme.per_word):
        groups = np.arange(first, first + len(rows)) // scheme.group_size
        yield (_words(rows, scheme, _AWQ_ORDER) - zeros[groups]) * scales[groups]
        first += len(rows)


def _compressed(module: str, scheme: Scheme, tensors: Mapping[str, Tensor]) -> Iterator[Floats]:
    scales = whole(tensors[f"{module}.weight_scale"])
    scales = scales.reshape(-1, scales.shape[-1]) if scales.ndim else scales.reshape(1, 1)
    zeros = _zeros(module, scheme, tensors, len(scales))
    first = 0
    for rows in chunks(tensors[f"{module}.{weight_name(scheme)}"], CHUNK // scheme.per_word):
        values = _words(rows, scheme) if scheme.layout is Layout.PACKED else rows.astype(np.float32)
        numbers = np.arange(first, first + len(rows))
        scale_rows = numbers // scheme.block[0] if scheme.strategy == "block" else np.minimum(numbers, len(scales) - 1)
        columns = _columns(scheme, values.shape[1])
        if zeros is not None:
            values -= zeros[scale_rows][:, columns] if zeros.ndim == 2 else zeros
        yield values * scales[scale_rows][:, columns]
        first += len(rows)


def _columns(scheme: Scheme, width: int) -> Array:
    """Return which scale of its row every column has."""
    size = {"group": scheme.group_size, "block": scheme.block[1]}.get(scheme.strategy, width)
    return np.arange(width) // size


def _zeros(module: str, scheme: Scheme, tensors: Mapping[str, Tensor], rows: int) -> Array | None:
    """Return the zero points of packed weights; those are stored from 0 up, symmetric ones around the middle."""
    if scheme.layout is not Layout.PACKED:
        return None
    if scheme.symmetric:
        return np.array(2 ** (scheme.bits - 1), np.float32)
    return _words(whole(tensors[f"{module}.weight_zero_point"]).T, scheme).T[:rows]


def _words(words: Array, scheme: Scheme, order: tuple[int, ...] = ()) -> Floats:
    """Spell the last axis out: 8 values of 4 bits for every word."""
    count = scheme.per_word
    shifts = np.arange(count, dtype=np.uint32) * np.uint32(scheme.bits)
    values = (words.view(np.uint32)[..., None] >> shifts) & np.uint32(2**scheme.bits - 1)
    if order:
        values = values[..., np.argsort(order)]
    return values.reshape(*words.shape[:-1], -1).astype(np.float32)
