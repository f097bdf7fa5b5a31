"""config_groups of compressed-tensors: the numbers of every target, as vLLM 0.32 reads them, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from calibration.inspection.scheme import Layout, Scheme, SchemeError

# Larger ones fit no layer and no machine's integers.
_Size = Annotated[int, msgspec.Meta(le=1 << 32)]
# Formats that engines take for such with quantized activations.
_WITH_ACTIVATIONS = ("naive-quantized", "int-quantized", "float-quantized")


class _QuantizationArgs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What compressed-tensors 0.17 calls QuantizationArgs."""

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    group_size: _Size | None = None
    strategy: str | None = None
    block_structure: tuple[_Size, _Size] | str | None = None
    dynamic: bool | str = False
    actorder: bool | str | None = None
    scale_dtype: str | None = None
    zp_dtype: str | None = None
    observer: str | None = None
    observer_kwargs: dict[str, Any] = {}  # Any: JSON

    @property
    def kind(self) -> str:
        return self.type.lower()

    @property
    def block(self) -> tuple[int, int] | None:
        """Return rows and columns, which old ones wrote as 64x128."""
        if not isinstance(self.block_structure, str):
            return self.block_structure
        rows, _, columns = self.block_structure.partition("x")
        return int(rows), int(columns)

    @property
    def scope(self) -> str:
        """Return the strategy, which may be left to follow from the size of the groups."""
        if self.strategy is not None:
            return self.strategy.lower()
        if self.group_size is None:
            return "tensor"
        return "channel" if self.group_size == -1 else "group"

    def faults(self) -> Iterator[str]:
        """Yield what compressed-tensors refuses in any number format."""
        scope, size = self.scope, self.group_size
        if scope not in ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head"):
            yield f"strategy must be tensor, channel, group or block, got {self.strategy!r}"
        if scope in ("group", "tensor_group") and (size is None or size < 1):
            yield f"group_size must be 1 or more, got {size}"
        if size is not None and (size < -1 or (size > 0 and scope not in ("group", "tensor_group"))):
            yield f"group_size is for strategy group, got {size} with strategy {scope}"
        if (scope == "block") != (self.block is not None) or min(self.block or (1, 1)) < 1:
            yield f"block_structure must be two sizes of 1 or more for strategy block alone, got {self.block_structure}"
        if scope == "token" and not self.dynamic:
            yield "strategy token must be dynamic"
        if self.dynamic and scope not in ("token", "tensor", "tensor_group", "group"):
            yield f"strategy {scope} must not be dynamic"


class _Group(msgspec.Struct, kw_only=True):
    targets: list[str]
    weights: _QuantizationArgs
    input_activations: _QuantizationArgs | None = None
    output_activations: dict[str, Any] | None = None  # Any: JSON
    format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How a group stores what it is for; an error: no engine can serve that."""

    layer: Scheme | SchemeError
    embedding: Scheme | SchemeError


def read_groups(groups: dict[str, Any], layout: str | None) -> dict[str, Target]:  # Any: JSON
    """Return what every target is stored as, in the order in which engines try them.

    Of a target that is named twice the last group counts, and the place of the first.

    Raises:
        SchemeError: a group is not one that can be read.

    """
    targets: dict[str, Target] = {}
    for name, fields in groups.items():
        if not _is_for_attention(fields):
            group = _read_group(name, fields, layout)
            target = Target(layer=_or_error(name, _scheme, group), embedding=_or_error(name, _embedding, group))
            targets |= dict.fromkeys(group.targets, target)
    return targets


def check_cache(scheme: dict[str, Any] | None) -> None:  # Any: JSON
    """Raise SchemeError if the KV cache cannot be kept as kv_cache_scheme says."""
    if scheme is None:
        return
    allowed_values = {"type": ("float",), "num_bits": (8,), "strategy": ("tensor", "attn_head"), "symmetric": (True,)}
    for name, values in allowed_values.items():
        if scheme.get(name) not in values:
            allowed = " or ".join(map(str, values))
            raise SchemeError(f"kv_cache_scheme: {name} must be {allowed}, got {scheme.get(name)!r:.80}")


def _is_for_attention(fields: Any) -> bool:  # noqa: ANN401  (JSON)
    """Tell whether a group is about the KV cache alone, which kv_cache_scheme says again."""
    targets = fields.get("targets") if isinstance(fields, dict) else None
    return isinstance(targets, list) and len(targets) == 1 and str(targets[0]).endswith("Attention")


def _read_group(name: str, fields: Any, layout: str | None) -> _Group:  # noqa: ANN401  (JSON)
    """Return a group with the format that counts for it; engines end at one of these errors, whoever it is for."""
    try:
        group = msgspec.convert(fields, _Group)
        faults = [*group.weights.faults(), *(group.input_activations.faults() if group.input_activations else ())]
    except ValueError as error:
        raise SchemeError(f"{name}: {error}") from error
    group.format = layout if group.format is None else group.format
    if str(group.weights.actorder).lower() in ("group", "dynamic", "true"):
        faults.append("actorder must be static or weight, engines no longer read columns out of order")
    if group.format in _WITH_ACTIVATIONS and group.weights.kind != "float" and not group.input_activations:
        faults.append(f"{group.format} integers need input_activations, vLLM has no scheme for weights alone")
    if faults:
        raise SchemeError(f"{name}: {faults[0]}")
    return group


def _or_error(name: str, make: Callable[[_Group], Scheme], group: _Group) -> Scheme | SchemeError:
    """Return the error instead of raising it: it may be that nothing is stored so."""
    try:
        return make(group)
    except SchemeError as error:
        return SchemeError(f"{name}: {error}")


def _scheme(group: _Group) -> Scheme:
    weights, inputs = group.weights, group.input_activations
    if group.format not in ("pack-quantized", *_WITH_ACTIVATIONS):
        known = ", ".join(("pack-quantized", *_WITH_ACTIVATIONS))
        raise SchemeError(f"format must be one of {known}, got {group.format!r:.80}")
    if group.output_activations:
        raise SchemeError("output_activations are not known here")
    # Of the other formats engines do not care which it is: integers and floats are stored as such.
    layout = Layout.FLOAT if weights.kind == "float" else Layout.INT
    layout = Layout.PACKED if group.format == "pack-quantized" else layout
    _check_numbers(layout, weights)
    if not _has_kernel(layout, weights, inputs):
        raise SchemeError(_without_kernel(layout, weights, inputs))
    return _stored(layout, weights, inputs if inputs is not None and not inputs.dynamic else None)


def _embedding(group: _Group) -> Scheme:
    """Return how a table that is looked up is stored: always packed, and activations do not matter."""
    weights = group.weights
    if weights.kind != "int" or weights.scope not in ("channel", "group"):
        scheme = f"{weights.kind} per {weights.scope}"
        raise SchemeError(f"embeddings are read as integers per channel or group only, not as {scheme}; ignore them")
    _check_numbers(Layout.PACKED, weights)
    return _stored(Layout.PACKED, weights)


def _stored(layout: Layout, weights: _QuantizationArgs, static: _QuantizationArgs | None = None) -> Scheme:
    return Scheme(
        layout=layout,
        bits=weights.num_bits,
        strategy=weights.scope,
        symmetric=weights.symmetric,
        group_size=weights.group_size or 0 if weights.scope == "group" else 0,
        block=weights.block or (0, 0),
        is_input_static=static is not None,
        has_input_zero=layout is Layout.INT and static is not None and not static.symmetric,
    )


def _check_numbers(layout: Layout, weights: _QuantizationArgs) -> None:
    widths = (4, 8) if layout is Layout.PACKED else (8,)
    if weights.num_bits not in widths:
        allowed_widths, kind = " or ".join(map(str, widths)), "float" if layout is Layout.FLOAT else "int"
        raise SchemeError(f"{layout} holds {kind} of {allowed_widths} bits, not {weights.kind} of {weights.num_bits}")
    if layout is not Layout.PACKED and not weights.symmetric:
        raise SchemeError(f"{layout} must be symmetric, no W8A8 kernel takes zero points of weights")
    if weights.dynamic:
        raise SchemeError("weights must not be dynamic")


def _has_kernel(layout: Layout, weights: _QuantizationArgs, inputs: _QuantizationArgs | None) -> bool:
    """Tell whether vLLM has a scheme for it on any hardware (CompressedTensorsConfig._get_scheme_from_parts)."""
    if layout is Layout.PACKED:
        # Without activations, also what is called float there is read as packed integers.
        return weights.scope in ("channel", "group") and (inputs is None or _is_for_packed(weights, inputs))
    if layout is Layout.FLOAT:
        return weights.scope in ("tensor", "channel") or (weights.scope == "block" and not _is_static_fp8(inputs))
    if inputs is None or weights.scope not in ("tensor", "channel") or inputs.num_bits != 8:
        return False
    return (inputs.scope, bool(inputs.dynamic)) in (("tensor", False), ("token", True))


def _is_for_packed(weights: _QuantizationArgs, inputs: _QuantizationArgs) -> bool:
    """Tell whether a kernel multiplies packed integers with such activations."""
    if weights.kind != "int" or not (inputs.dynamic and inputs.symmetric):
        return False
    if inputs.kind == "int":
        return inputs.num_bits in (4, 8) and inputs.scope in ("token", "group")
    # GPUs of one generation (H100) have units for it.
    has_four = weights.num_bits == 4 and weights.symmetric and weights.scope == "group"
    return has_four and inputs.num_bits == 8 and inputs.scope == "token"


def _is_static_fp8(inputs: _QuantizationArgs | None) -> bool:
    """Tell whether inputs are rounded with one scale that is stored; any others are computed or left as they are."""
    if inputs is None or inputs.kind != "float":
        return False
    return inputs.symmetric and not inputs.dynamic and inputs.scope == "tensor"


def _without_kernel(layout: Layout, weights: _QuantizationArgs, inputs: _QuantizationArgs | None) -> str:
    activations = f"{inputs.kind} of {inputs.num_bits} bits per {inputs.scope}" if inputs else "none"
    activations += ", dynamic" if inputs and inputs.dynamic else ""
    return (
        f"vLLM has no scheme for {layout} {weights.kind} of {weights.num_bits} bits per {weights.scope} with "
        f"input_activations {activations}"
    )
