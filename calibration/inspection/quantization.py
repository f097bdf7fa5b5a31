"""quantization_config -> how each layer is stored, resolved as vLLM 0.32 does: by whole modules, not parts of names.

What an engine stacks is one module there, with a name of its own (qkv_proj), and is read in one way or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec

from calibration.inspection.groups import Target, check_cache, read_groups
from calibration.inspection.json_text import parse_json
from calibration.inspection.model import EMBEDDING, HEAD, Module
from calibration.inspection.patterns import PatternError, Patterns
from calibration.inspection.scheme import Layout, Scheme, SchemeError
from calibration.inspection.tensor_file import Tensor
from calibration.inspection.verdict import CheckName, Findings

Schemes = Mapping[str, Scheme]  # by layer; one that is not in it is stored as it is
# Where ModelOpt kept it before it wrote into config.json.
_BESIDE = "hf_quant_config.json"
# What engines take for layers that AutoAWQ left alone, where no list says which.
_LEFT_ALONE = ("F16", "BF16", "F32")


class _Quantization(Protocol):
    """Which layer is stored how."""

    def schemes(self, modules: Sequence[Module], findings: Findings) -> Schemes:
        """Return how the layers of these modules are stored; what an engine cannot build is a finding.

        Raises:
            SchemeError: the configuration cannot be resolved.

        """
        ...


def find_quantization(folder: Path, config: Mapping[str, Any]) -> tuple[Any, str]:  # Any: JSON
    """Return what engines take for the quantization_config, None where there is none, and where it stands.

    Raises:
        SchemeError: it stands in a file that cannot be read.

    """
    if config.get("quantization_config") is not None:
        return config["quantization_config"], "quantization_config"
    if (folder / _BESIDE).exists():
        try:
            return parse_json((folder / _BESIDE).read_bytes()), _BESIDE
        except (OSError, ValueError) as error:
            raise SchemeError(f"{_BESIDE}: {error}") from error
    inner = config.get("text_config")
    if isinstance(inner, dict) and inner.get("quantization_config") is not None:
        return inner["quantization_config"], "text_config.quantization_config"
    return config.get("compression_config"), "compression_config"  # the key that compressed-tensors had first


def read_quantization(config: Any, tensors: Mapping[str, Tensor]) -> _Quantization | None:  # noqa: ANN401  (JSON)
    """Return what a quantization_config says, None where there is none; the tensors say what AutoAWQ left alone.

    Raises:
        SchemeError: it cannot be served, or cannot be looked into.

    """
    if config is None:
        return None
    method = config.get("quant_method") if isinstance(config, dict) else None
    known = str(method).lower().replace("compressed_tensors", "compressed-tensors")
    try:
        if known == "compressed-tensors":
            return _compressed_tensors(msgspec.convert(config, _CompressedTensors))
        if known == "awq":
            return _awq(msgspec.convert(_with_usual_names(config), _Awq), tensors)
    except ValueError as error:
        raise SchemeError(str(error)) from error
    raise SchemeError(f"quant_method must be compressed-tensors or awq, got {method!r:.80}")


class _CompressedTensors(msgspec.Struct, kw_only=True):
    config_groups: dict[str, Any]  # Any: JSON
    format: str | None = None
    ignore: list[str] = []
    quantization_status: str = "compressed"
    kv_cache_scheme: dict[str, Any] | None = None
    sparsity_config: dict[str, Any] | None = None


def _compressed_tensors(config: _CompressedTensors) -> CompressedTensors:
    if not config.config_groups and not config.kv_cache_scheme:
        raise SchemeError("config_groups is empty: nothing says what is quantized")
    if config.quantization_status != "compressed":
        raise SchemeError(f"quantization_status must be compressed, got {config.quantization_status!r:.80}")
    if (config.sparsity_config or {}).get("targets"):
        raise SchemeError("sparsity_config has targets: engines no longer read sparse checkpoints")
    check_cache(config.kv_cache_scheme)
    return CompressedTensors(
        targets=read_groups(config.config_groups, config.format),
        ignored=tuple(config.ignore),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedTensors:
    """Targets and names to ignore are whole names, expressions, or, targets only, parts of the name of a class."""

    targets: Mapping[str, Target]
    ignored: tuple[str, ...]

    def schemes(self, modules: Sequence[Module], findings: Findings) -> Schemes:
        names = {name for module in modules for name in names_of(module)}
        try:
            patterns = Patterns([*self.ignored, *self.targets], names)
        except PatternError as error:
            raise SchemeError(str(error)) from error
        schemes: dict[str, Scheme] = {}
        for module in modules:
            schemes |= self.schemes_in(module, patterns, findings)
        self._warn_of_parts({layer for module in modules for layer in module.layers}, findings)
        return schemes

    def schemes_in(self, module: Module, patterns: Patterns, findings: Findings) -> Schemes:
        schemes: dict[str, Scheme] = {}
        for part in self._parts(module, patterns, findings):
            scheme = self._scheme_of(part, patterns)
            if isinstance(scheme, SchemeError):
                findings.fail(CheckName.QUANTIZATION, f"{part.shown}: {scheme}")
            elif scheme:
                schemes |= dict.fromkeys(part.layers, scheme)
        return schemes

    def _parts(self, module: Module, patterns: Patterns, findings: Findings) -> Iterator[Module]:
        """Yield the module unless it is ignored; of a stack of which only some are, where engines end, the others."""

        def is_ignored(name: str) -> bool:
            return any(patterns.match(pattern, name) for pattern in self.ignored)

        if is_ignored(module.name):
            return
        left = tuple(layer for layer in module.layers if not (module.is_stack and is_ignored(layer)))
        if left == module.layers:
            yield module
        elif left:
            findings.fail(CheckName.ALIGNMENT, f"{module.shown} are stacked and must be quantized alike")
            yield from (Module(name=layer, kind=module.kind, layers=(layer,)) for layer in left)

    def _scheme_of(self, module: Module, patterns: Patterns) -> Scheme | SchemeError | None:
        """Try its name with all targets, then the layers that are stacked in it, then its class."""
        target = self._first(module.name, patterns)
        if target is None and module.is_stack:
            of_layers = [self._first(layer, patterns) for layer in module.layers]
            target = None if None in of_layers else of_layers[0]
        if target is None:
            target = next((item for item in self.targets if patterns.match_class(item, module.kind)), None)
        if target is None:
            return None
        return self.targets[target].embedding if module.kind == EMBEDDING else self.targets[target].layer

    def _first(self, name: str, patterns: Patterns) -> str | None:
        return next((target for target in self.targets if patterns.match(target, name)), None)

    def _warn_of_parts(self, layers: set[str], findings: Findings) -> None:
        """Say which names are parts of names, which quantizers of old took, and engines take for no layer's."""
        tails = {layer.split(".", cut)[-1] for layer in layers for cut in range(1, layer.count(".") + 1)}
        for what, names in (("ignore", self.ignored), ("targets", tuple(self.targets))):
            for name in names:
                if name in tails and name not in layers:
                    findings.warn(
                        CheckName.QUANTIZATION,
                        f"{what} {name!r} is no layer's whole name: engines take it for none, 're:.*{name}$' is meant",
                    )


def names_of(module: Module) -> tuple[str, ...]:
    """Return all names that patterns are tried on."""
    return (module.name, module.kind, *module.layers)


# Larger ones fit no layer and no machine's integers.
_Size = Annotated[int, msgspec.Meta(le=1 << 32)]


class _Awq(msgspec.Struct, kw_only=True):
    bits: int
    group_size: _Size
    zero_point: bool
    version: str = "gemm"
    modules_to_not_convert: list[str] | None = None
    lm_head: bool = False


def _with_usual_names(config: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Return the configuration with the names that transformers writes; AutoAWQ's own files have others."""
    usual_names = {"w_bit": "bits", "q_group_size": "group_size"}
    return config | {usual: config[name] for name, usual in usual_names.items() if name in config}


def _awq(config: _Awq, tensors: Mapping[str, Tensor]) -> Awq:
    if config.bits != 4:
        raise SchemeError(f"awq: bits must be 4, got {config.bits}")
    if config.version.lower() != "gemm":
        raise SchemeError(f"awq: version must be gemm, the one layout that vLLM reads, got {config.version!r}")
    if config.group_size < 1:
        raise SchemeError(f"awq: group_size must be 1 or more, got {config.group_size}")
    if not config.zero_point:
        raise SchemeError("awq: zero_point must be true, the one layout that AutoAWQ's kernels read")
    scheme = Scheme(layout=Layout.AWQ, bits=4, strategy="group", symmetric=False, group_size=config.group_size)
    names = tuple(config.modules_to_not_convert or ())
    return Awq(scheme=scheme, names=names or _left_alone(tensors), is_head_converted=config.lm_head)


def _left_alone(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    converted = {_module_of(name) for name, item in tensors.items() if item.dtype not in _LEFT_ALONE}
    return tuple(sorted({_module_of(name) for name in tensors} - converted))


def _module_of(tensor: str) -> str:
    return tensor.rsplit(".", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq:
    """All linear layers but those of which a name in the list is a part."""

    scheme: Scheme
    names: tuple[str, ...]
    is_head_converted: bool

    def schemes(self, modules: Sequence[Module], findings: Findings) -> Schemes:
        schemes: dict[str, Scheme] = {}
        for module in modules:
            if module.kind == EMBEDDING or (module.kind == HEAD and not self.is_head_converted):
                continue
            if self._is_listed(module.name):
                continue
            left = [layer for layer in module.layers if not self._is_listed(layer)]
            if left and len(left) < len(module.layers):
                findings.fail(CheckName.ALIGNMENT, f"{module.shown} are stacked and must be quantized alike")
            schemes |= dict.fromkeys(left, self.scheme)
        return schemes

    def _is_listed(self, name: str) -> bool:
        return any(listed in name for listed in self.names)
