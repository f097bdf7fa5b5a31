"""Read safetensors files: the header with every doubt about it, and the bytes of a tensor a few rows at a time.

Our own reader, because a broken header must be named, not raised as one line of another library; because numpy lacks
bfloat16 and the 8-bit floats; and because a tensor may be larger than the memory that an inspection should take.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from calibration.inspection.json_text import Pairs, parse_json

# What safetensors' own reader takes at most.
_MAX_HEADER_BYTES = 100_000_000
# Elements looked at at once: 8 MB as float32.
CHUNK = 1 << 21

_PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_PLAIN |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
_CODED = {"BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}
STORED = {name: np.dtype(kind) for name, kind in (_PLAIN | _CODED).items()}
# What is stored as it is; engines turn one of these into another, and take 8-bit floats without their scales for them.
WIDE_FLOATS = {"F64", "F32", "F16", "BF16"}
FLOATS = WIDE_FLOATS | {"F8_E4M3", "F8_E5M2"}

Array = npt.NDArray[Any]  # of a type that the dtype names


class FileError(Exception):
    """A file is not what a safetensors file must be; the message says how."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int  # from the start of the file
    end: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


# As far as a file may reach; a product of so many is still a number that can be shown.
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Shape = Annotated[list[_Size], msgspec.Meta(max_length=64)]


class _Entry(msgspec.Struct):
    dtype: str
    shape: _Shape
    data_offsets: tuple[_Size, _Size]


def read_header(path: Path) -> list[Tensor]:
    """Return the tensors of a file in the order of their bytes.

    Raises:
        FileError: it is cut off, no safetensors file, or its header contradicts itself.

    """
    if not path.is_file():
        raise FileError(f"{path.name} is no file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
            raise FileError(f"{path.name} is cut off or no safetensors file: a header of {length} bytes in {size}")
        entries = _parse(path.name, file.read(length))
    tensors = [_tensor(path, 8 + length, name, entry) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_cover(path.name, 8 + length, size, tensors)
    return tensors


def _parse(name: str, header: bytes) -> dict[str, _Entry]:
    def once(pairs: Pairs) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise FileError(f"{name} names {twice} twice")
        return fields

    try:
        fields = parse_json(header, once)
        msgspec.convert(fields.pop("__metadata__", None), dict[str, str] | None)
        for key in fields:
            key.encode()  # halves of a character are no name: no engine's reader takes them
        return msgspec.convert(fields, dict[str, _Entry])
    except (ValueError, AttributeError, TypeError) as error:
        raise FileError(f"{name}: its header is damaged: {error}") from error


def _tensor(path: Path, start: int, name: str, entry: _Entry) -> Tensor:
    begin, end = entry.data_offsets
    tensor = Tensor(
        name=name,
        dtype=entry.dtype,
        shape=tuple(entry.shape),
        file=path,
        begin=start + begin,
        end=start + end,
    )
    if entry.dtype not in STORED:
        raise FileError(f"{path.name}: {name} has dtype {entry.dtype!r}, expected one of {', '.join(STORED)}")
    needed = tensor.size * STORED[entry.dtype].itemsize
    if end - begin != needed:
        raise FileError(f"{path.name}: {name} {entry.dtype}{entry.shape} takes {needed} bytes, {end - begin} are named")
    return tensor


def _check_cover(name: str, start: int, size: int, tensors: list[Tensor]) -> None:
    """Every byte belongs to one tensor: a file whose end is missing is the most frequent damage."""
    at = start
    for tensor in tensors:
        if tensor.begin != at:
            raise FileError(f"{name}: {tensor.name} begins at byte {tensor.begin}, expected {at}: overlap or gap")
        at = tensor.end
    if at != size:
        what = "is cut off" if size < at else "has bytes that belong to no tensor"
        raise FileError(f"{name} {what}: {size} bytes, its header speaks of {at}")


def chunks(tensor: Tensor, max_items: int = CHUNK) -> Iterator[Array]:
    """Yield the rows of a tensor, a few at a time, as (rows, width); floats as float32."""
    width = tensor.shape[-1] if tensor.shape else 1
    if not tensor.size:
        return
    stored = STORED[tensor.dtype]
    rows, step = tensor.size // width, max(1, max_items // width)
    with tensor.file.open("rb") as file:
        file.seek(tensor.begin)
        for first in range(0, rows, step):
            count = min(step, rows - first) * width
            yield decode(np.fromfile(file, stored, count), tensor.dtype).reshape(-1, width)


def whole(tensor: Tensor) -> Array:
    """Return a tensor that is known to be small."""
    parts = list(chunks(tensor))
    return np.concatenate(parts).reshape(tensor.shape) if parts else np.zeros(tensor.shape, np.float32)


def decode(raw: Array, dtype: str) -> Array:
    """Return floats as float32 (float64 stays), everything else as it is stored."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if dtype in _TABLES:
        return _TABLES[dtype][raw]
    return raw.astype(np.float32) if dtype == "F16" else raw


def _eight_bit_floats(exponent_bits: int, *, has_infinity: bool) -> npt.NDArray[np.float32]:
    """Return the value of each of the 256 codes."""
    mantissa_bits, bias = 7 - exponent_bits, 2 ** (exponent_bits - 1) - 1
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent, mantissa = (codes & 0x7F) >> mantissa_bits, codes & (2**mantissa_bits - 1)
    fraction = mantissa / 2**mantissa_bits + (exponent > 0)
    values = sign * fraction * 2.0 ** (np.maximum(exponent, 1) - bias)
    if has_infinity:
        special = exponent == 2**exponent_bits - 1
        values = np.where(special, np.where(mantissa > 0, np.nan, sign * np.inf), values)
    else:
        values = np.where((codes & 0x7F) == 0x7F, np.nan, values)
    return values.astype(np.float32)


_TABLES = {"F8_E4M3": _eight_bit_floats(4, has_infinity=False), "F8_E5M2": _eight_bit_floats(5, has_infinity=True)}
