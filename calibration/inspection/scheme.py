"""How one quantized layer is stored: the tensors that it must have, in compressed-tensors' and AutoAWQ's layouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Layout(StrEnum):
    """How a quantized layer's tensors are named and shaped."""

    PACKED = "pack-quantized"
    INT = "int-quantized"
    FLOAT = "float-quantized"
    AWQ = "awq"


class SchemeError(Exception):
    """The quantization_config is not one that can be served; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The storage of one layer."""

    layout: Layout
    bits: int
    strategy: str  # of the weights: tensor, channel, group or block
    symmetric: bool
    group_size: int = 0  # strategy group only
    block: tuple[int, int] = (0, 0)  # strategy block only: rows, columns
    is_input_static: bool = False
    has_input_zero: bool = False  # static inputs only

    @property
    def per_word(self) -> int:
        """Values in one int32."""
        return 32 // self.bits

    def tensors(self, outputs: int, inputs: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return what a layer must have: suffix -> (kind of dtype, shape). "float": any floating dtype."""
        if self.layout is Layout.AWQ:
            groups, words = math.ceil(inputs / self.group_size), outputs // self.per_word
            return {
                "qweight": ("I32", (inputs, words)),
                "qzeros": ("I32", (groups, words)),
                "scales": ("float", (groups, outputs)),
            }
        scales = self._scales(outputs, inputs)
        tensors = {"weight_scale": ("float", scales)}
        if self.layout is Layout.PACKED:
            tensors["weight_packed"] = ("I32", (outputs, math.ceil(inputs / self.per_word)))
            tensors["weight_shape"] = ("I64", (2,))
            if not self.symmetric:
                tensors["weight_zero_point"] = ("I32", (math.ceil(outputs / self.per_word), *scales[1:]))
        else:
            tensors["weight"] = ("I8" if self.layout is Layout.INT else "F8_E4M3", (outputs, inputs))
        if self.is_input_static:
            tensors["input_scale"] = ("float", (1,))
        if self.has_input_zero:
            tensors["input_zero_point"] = ("I8", (1,))
        return tensors

    def _scales(self, outputs: int, inputs: int) -> tuple[int, ...]:
        if self.strategy == "group":
            return outputs, math.ceil(inputs / self.group_size)
        if self.strategy == "block":
            return math.ceil(outputs / self.block[0]), math.ceil(inputs / self.block[1])
        return (outputs, 1) if self.strategy == "channel" else (1,)
