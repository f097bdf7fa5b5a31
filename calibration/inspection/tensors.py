"""The tensors that are there against those that config and quantization_config promise: names, dtypes, shapes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from calibration.inspection.model import EMBEDDING_LAYER, Layers
from calibration.inspection.quantization import Schemes
from calibration.inspection.scheme import Layout, Scheme
from calibration.inspection.tensor_file import WIDE_FLOATS, Tensor, whole
from calibration.inspection.verdict import CheckName, Findings

# Computed anew by every engine; old checkpoints carry it.
_COMPUTED = re.compile(r".*\.rotary_emb\.inv_freq")
# Scales of a quantized KV cache, under the names that vLLM 0.32 renames where there is a quantization_config.
_CACHE_NUMBERS = re.compile(
    r".*\.self_attn\.(?:(?:attn\.)?[qkv]_(scale|zero_point)|(?:[kv]|qkv|qkqkv)_proj\.[kv]_(scale)|kv_(scale))"
)
_LAYER = re.compile(r"(.*\.layers\.)(\d{1,9})(\..*)")

_Expected = dict[str, tuple[str, tuple[int, ...]]]


def expected_tensors(layers: Layers, schemes: Schemes) -> _Expected:
    """Return name -> (kind of dtype, shape) of all tensors that the model must have."""
    expected: _Expected = {name: ("float", shape) for name, shape in layers.plain.items()}
    for module, (outputs, inputs) in layers.linears.items():
        scheme = schemes.get(module)
        layer_tensors: _Expected = (
            scheme.tensors(outputs, inputs) if scheme else {"weight": ("float", (outputs, inputs))}
        )
        expected |= {f"{module}.{suffix}": what for suffix, what in layer_tensors.items()}
    return expected


def compare(
    tensors: Mapping[str, Tensor], expected: _Expected, *, is_tied: bool, is_quantized: bool, findings: Findings
) -> None:
    for name in sorted(set(expected) - set(tensors)):
        findings.fail(CheckName.TENSORS, f"{name} is missing")
    for name in sorted(set(tensors) - set(expected)):
        if not (is_quantized and _CACHE_NUMBERS.fullmatch(name)):
            _judge_extra(name, is_tied, findings)
    for name, (kind, shape) in expected.items():
        if name in tensors:
            _judge_form(tensors[name], kind, shape, findings)
    findings.ok(CheckName.TENSORS, f"all {len(expected)} that config.json promises, with its shapes")


def compare_layers(tensors: Mapping[str, Tensor], count: int, findings: Findings) -> None:
    """Hold the layers against each other: all that can be done where the architecture is not known."""
    layers: dict[int, set[str]] = defaultdict(set)
    for match in filter(None, map(_LAYER.fullmatch, tensors)):
        layers[int(match[2])].add(match[1] + "N" + match[3])
    common = Counter(frozenset(names) for names in layers.values()).most_common(1)
    usual = common[0][0] if common else frozenset[str]()
    for number in range(count):
        for name in sorted(usual - layers[number]):
            findings.fail(CheckName.TENSORS, f"{name.replace('.N.', f'.{number}.')} is missing, other layers have it")
    for number in sorted(set(layers) - set(range(count))):
        findings.fail(CheckName.TENSORS, f"layer {number} is more than num_hidden_layers ({count}) allows")
    findings.warn(CheckName.TENSORS, "the architecture is not known here: layers were only held against each other")


def compare_packed(tensors: Mapping[str, Tensor], layers: Layers, schemes: Schemes, findings: Findings) -> None:
    """Read what a packed weight says about its true shape."""
    for module, shape in layers.linears.items():
        scheme = schemes.get(module)
        stored = tensors.get(f"{module}.weight_shape")
        if scheme and scheme.layout is Layout.PACKED and stored and stored.shape == (2,) and stored.dtype == "I64":
            stored_shape = tuple(int(number) for number in whole(stored))
            if stored_shape != shape:
                findings.fail(CheckName.TENSORS, f"{stored.name} says {stored_shape}, config.json {shape}")


def cache_scales(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the scales of a quantized KV cache."""
    matches = ((tensor, _CACHE_NUMBERS.fullmatch(name)) for name, tensor in tensors.items())
    return [tensor for tensor, match in matches if match and "scale" in match.groups()]


def summarize_dtypes(tensors: Mapping[str, Tensor], findings: Findings) -> dict[str, dict[str, int]]:
    """Return kind of tensor -> dtype -> count; layers that differ from the others are unusual."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for tensor in tensors.values():
        match = _LAYER.fullmatch(tensor.name)
        kinds[match[3].removeprefix(".") if match else tensor.name][tensor.dtype] += 1
    for kind, dtypes in kinds.items():
        if len(dtypes) > 1:
            shown = ", ".join(f"{dtype} in {count}" for dtype, count in dtypes.most_common())
            findings.warn(CheckName.DTYPES, f"{kind}: {shown} layers")
    overall = Counter(tensor.dtype for tensor in tensors.values())
    findings.ok(CheckName.DTYPES, ", ".join(f"{dtype} {count}" for dtype, count in overall.most_common()))
    return {kind: dict(dtypes) for kind, dtypes in kinds.items()}


def _judge_extra(name: str, is_tied: bool, findings: Findings) -> None:
    if _COMPUTED.fullmatch(name) or (is_tied and name == "lm_head.weight"):
        findings.warn(CheckName.TENSORS, f"{name} is not used")
    else:
        findings.fail(CheckName.TENSORS, f"{name} belongs to no layer of config.json")


def _judge_form(tensor: Tensor, kind: str, shape: tuple[int, ...], findings: Findings) -> None:
    fits = tensor.dtype in WIDE_FLOATS if kind == "float" else tensor.dtype == kind
    if not fits:
        findings.fail(CheckName.TENSORS, f"{tensor.name} has dtype {tensor.dtype}, expected {kind}")
    # One scale for all may be stored as a number or as a list of one.
    if tensor.shape != shape and not (shape == (1,) and tensor.shape == ()):
        findings.fail(CheckName.TENSORS, f"{tensor.name} has shape {list(tensor.shape)}, expected {list(shape)}")


def scheme_names(layers: Layers, schemes: Schemes) -> Counter[str]:
    """Count the linear layers by how they are stored; quantized embeddings, which are rare, are named."""
    plain = set(layers.linears) - set(schemes) - {EMBEDDING_LAYER}
    matches = Counter(_name_of(schemes[layer]) for layer in layers.linears if layer in schemes)
    return matches + Counter(unquantized=len(plain))


def _name_of(scheme: Scheme) -> str:
    size = {"group": f" of {scheme.group_size}", "block": " of {} x {}".format(*scheme.block)}.get(scheme.strategy, "")
    sign = "symmetric" if scheme.symmetric else "asymmetric"
    return f"{scheme.layout} {scheme.bits} bit, per {scheme.strategy}{size}, {sign}"
