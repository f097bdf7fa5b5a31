"""quantization_config -> how each linear layer is stored. compressed-tensors' and AutoAWQ's layouts are known."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec


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
        found = {"weight_scale": ("float", scales)}
        if self.layout is Layout.PACKED:
            found["weight_packed"] = ("I32", (outputs, math.ceil(inputs / self.per_word)))
            found["weight_shape"] = ("I64", (2,))
            if not self.symmetric:
                found["weight_zero_point"] = ("I32", (math.ceil(outputs / self.per_word), *scales[1:]))
        else:
            found["weight"] = ("I8" if self.layout is Layout.INT else "F8_E4M3", (outputs, inputs))
        if self.is_input_static:
            found["input_scale"] = ("float", (1,))
        return found

    def _scales(self, outputs: int, inputs: int) -> tuple[int, ...]:
        if self.strategy == "group":
            return outputs, math.ceil(inputs / self.group_size)
        if self.strategy == "block":
            return math.ceil(outputs / self.block[0]), math.ceil(inputs / self.block[1])
        return (outputs, 1) if self.strategy == "channel" else (1,)


# Larger ones fit no layer and no machine's integers.
_Size = Annotated[int, msgspec.Meta(le=1 << 32)]


class _Numbers(msgspec.Struct, kw_only=True):
    num_bits: int
    type: str
    strategy: str | None = None
    symmetric: bool = True
    dynamic: bool | str = False
    group_size: _Size | None = None
    block_structure: tuple[_Size, _Size] | None = None


class _Group(msgspec.Struct, kw_only=True):
    targets: list[str]
    weights: _Numbers | None = None
    input_activations: _Numbers | None = None
    format: str | None = None


class _CompressedTensors(msgspec.Struct, kw_only=True):
    config_groups: dict[str, _Group]
    format: str = ""
    ignore: list[str] = []
    quantization_status: str = "compressed"


class _Awq(msgspec.Struct, kw_only=True):
    bits: int
    group_size: _Size
    zero_point: bool
    version: str = "gemm"
    modules_to_not_convert: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Which layer is stored how."""

    rules: tuple[tuple[tuple[str, ...], Scheme], ...]  # targets -> scheme; the first that matches counts
    ignored: tuple[str, ...]
    are_ignored_parts: bool = False  # AWQ names parts of module names

    def scheme_of(self, module: str) -> Scheme | None:
        """Return how a linear layer is stored; None: as it is."""
        if any(self._is_ignored(module, pattern) for pattern in self.ignored):
            return None
        for targets, scheme in self.rules:
            if any(target == "Linear" or _matches(module, target) for target in targets):
                return scheme
        return None

    def _is_ignored(self, module: str, pattern: str) -> bool:
        return pattern in module if self.are_ignored_parts else _matches(module, pattern)


def _matches(module: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    return module == pattern or module.endswith(f".{pattern}")


def read_quantization(config: dict[str, Any] | None) -> Quantization | None:
    """Return the layouts that a quantization_config speaks of, None where there is none.

    Raises:
        SchemeError: it cannot be served, or cannot be looked into.

    """
    if config is None:
        return None
    method = config.get("quant_method")
    try:
        if method == "compressed-tensors":
            return _compressed_tensors(msgspec.convert(config, _CompressedTensors))
        if method == "awq":
            return _awq(msgspec.convert(config, _Awq))
    # The last two are what patterns end in that are nested too deeply or repeat too often.
    except (ValueError, re.error, RecursionError, OverflowError) as error:
        raise SchemeError(f"quantization_config: {error}") from error
    raise SchemeError(f"quant_method must be compressed-tensors or awq, got {method!r}")


def _awq(config: _Awq) -> Quantization:
    if config.bits != 4:
        raise SchemeError(f"awq: bits must be 4, got {config.bits}")
    if config.version.lower() != "gemm":
        raise SchemeError(f"awq: version must be gemm, the one layout that vLLM reads, got {config.version!r}")
    if config.group_size < 1:
        raise SchemeError(f"awq: group_size must be 1 or more, got {config.group_size}")
    if not config.zero_point:
        raise SchemeError("awq: zero_point must be true, the one layout that AutoAWQ's kernels read")
    scheme = Scheme(layout=Layout.AWQ, bits=4, strategy="group", symmetric=False, group_size=config.group_size)
    # The head is never converted, and is not always listed.
    ignored = (*(config.modules_to_not_convert or ()), "lm_head")
    return Quantization(rules=((("Linear",), scheme),), ignored=ignored, are_ignored_parts=True)


def _compressed_tensors(config: _CompressedTensors) -> Quantization:
    if not config.config_groups:
        raise SchemeError("config_groups is empty: nothing says what is quantized")
    if config.quantization_status != "compressed":
        raise SchemeError(f"quantization_status must be compressed, got {config.quantization_status!r}")
    for pattern in (*config.ignore, *(target for group in config.config_groups.values() for target in group.targets)):
        if pattern.startswith("re:"):
            re.compile(pattern[3:])
    rules = [
        (tuple(group.targets), _scheme(name, group, group.format or config.format))
        for name, group in config.config_groups.items()
        if group.weights is not None
    ]
    return Quantization(rules=tuple(rules), ignored=tuple(config.ignore))


def _scheme(name: str, group: _Group, layout: str) -> Scheme:
    weights, inputs = group.weights, group.input_activations
    assert weights  # noqa: S101  (the caller looked)
    layouts = {str(one): one for one in (Layout.PACKED, Layout.INT, Layout.FLOAT)}
    layouts["naive-quantized"] = Layout.FLOAT if weights.type == "float" else Layout.INT
    if layout not in layouts:
        raise SchemeError(f"{name}: format must be one of {', '.join(layouts)}, got {layout!r}")
    widths, kind = ((4, 8), "int") if layouts[layout] is Layout.PACKED else ((8,), None)
    kind = kind or ("float" if layouts[layout] is Layout.FLOAT else "int")
    if weights.num_bits not in widths or weights.type != kind:
        wanted = " or ".join(map(str, widths))
        raise SchemeError(f"{name}: {layout} holds {kind} of {wanted} bits, not {weights.type} of {weights.num_bits}")
    if layouts[layout] is not Layout.PACKED and not weights.symmetric:
        raise SchemeError(f"{name}: {layout} must be symmetric, no W8A8 kernel takes zero points of weights")
    strategy = weights.strategy or ("group" if weights.group_size else "tensor")
    _check_strategy(name, strategy, weights)
    return Scheme(
        layout=layouts[layout],
        bits=weights.num_bits,
        strategy=strategy,
        symmetric=weights.symmetric,
        group_size=weights.group_size or 0,
        block=weights.block_structure or (0, 0),
        is_input_static=inputs is not None and inputs.dynamic is False,
    )


def _check_strategy(name: str, strategy: str, weights: _Numbers) -> None:
    if strategy not in ("tensor", "channel", "group", "block"):
        raise SchemeError(f"{name}: strategy must be tensor, channel, group or block, got {strategy!r}")
    if strategy == "group" and (weights.group_size or 0) < 1:
        raise SchemeError(f"{name}: group_size must be 1 or more, got {weights.group_size}")
    if strategy == "block" and min(weights.block_structure or (0, 0)) < 1:
        raise SchemeError(f"{name}: block_structure must be two sizes of 1 or more, got {weights.block_structure}")
