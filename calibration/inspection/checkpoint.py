"""Inspect one checkpoint: files -> config -> tensors -> values -> tokenizer. READ THIS FIRST."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from calibration.artifacts.digest import MANIFEST_NAME, file_digest
from calibration.artifacts.manifest import read_manifest
from calibration.errors import InputError
from calibration.inspection.alignment import check_alignment
from calibration.inspection.files import read_tensors
from calibration.inspection.json_text import parse_json
from calibration.inspection.model import HEAD_LAYER, Layers, ModelConfig, layers_of, parameters
from calibration.inspection.quantization import Schemes, find_quantization, read_quantization
from calibration.inspection.scheme import SchemeError
from calibration.inspection.tensor_file import Tensor
from calibration.inspection.tensors import (
    cache_scales,
    compare,
    compare_layers,
    compare_packed,
    expected_tensors,
    scheme_names,
    summarize_dtypes,
)
from calibration.inspection.tokenizer import check_tokenizer
from calibration.inspection.unpack import scale_names
from calibration.inspection.values import check_linear, check_plain, check_scales
from calibration.inspection.verdict import CheckName, Findings, Inspection

# Told how many of how many bytes have been looked at.
OnProgress = Callable[[int, int], None]


def inspect_checkpoint(folder: Path, on_progress: OnProgress = lambda done, total: None) -> Inspection:
    """Return what is right and wrong with a checkpoint; only a folder that is not there is an error.

    Raises:
        InputError: there is no such folder.

    """
    if not folder.is_dir():
        raise InputError(f"a checkpoint is a folder, {str(folder)!r} is none")
    started_s, findings = time.monotonic(), Findings()
    tensors: dict[str, Tensor] = {}
    dtypes: dict[str, dict[str, int]] = {}
    try:
        tensors = read_tensors(folder, findings)
        config = _read_config(folder, findings)
        dtypes = summarize_dtypes(tensors, findings) if tensors else {}
        if config:
            _check_model(folder, config, tensors, findings, on_progress)
            check_tokenizer(folder, config, findings)
        _check_size(config, tensors, findings)
        _check_manifest(folder, findings)
    except OSError as error:  # a disk that breaks, or a file that is not for us
        findings.fail(CheckName.FILES, f"cannot be read: {error}")
    return Inspection(
        path=folder,
        verdict=findings.worst(),
        checks=findings.checks(),
        weight_bytes=sum(tensor.end - tensor.begin for tensor in tensors.values()),
        dtypes=dtypes,
        seconds=round(time.monotonic() - started_s, 1),
        peak_bytes=_peak_bytes(),
    )


def _read_config(folder: Path, findings: Findings) -> ModelConfig | None:
    try:
        config = msgspec.convert(parse_json((folder / "config.json").read_bytes()), ModelConfig)
    except FileNotFoundError:
        findings.fail(CheckName.CONFIG, "config.json is missing")
        return None
    except (OSError, ValueError) as error:
        findings.fail(CheckName.CONFIG, f"config.json: {error!s:.200}")
        return None
    if config.auto_map:
        findings.warn(CheckName.CONFIG, "auto_map names code in the folder; engines run it only when they are told to")
    findings.ok(CheckName.CONFIG, f"{', '.join(config.architectures)}, {config.num_hidden_layers} layers")
    return config


def _check_model(
    folder: Path, config: ModelConfig, tensors: Mapping[str, Tensor], findings: Findings, on_progress: OnProgress
) -> None:
    layers = layers_of(config)
    try:
        schemes = _resolve(folder, config, layers, tensors, findings)
    except SchemeError as error:
        findings.fail(CheckName.QUANTIZATION, str(error))
        return
    if layers is None:
        compare_layers(tensors, config.num_hidden_layers, findings)
        _check_tensors(tensors, findings, on_progress)
        return
    if findings.has_failed(CheckName.QUANTIZATION):
        return  # which tensors there must be is not known
    expected, is_tied = expected_tensors(layers, schemes or {}), config.tie_word_embeddings
    compare(tensors, expected, is_tied=is_tied, is_quantized=schemes is not None, findings=findings)
    schemes = schemes or {}
    compare_packed(tensors, layers, schemes, findings)
    check_alignment(layers, schemes, findings)
    names = scheme_names(layers, schemes)
    summary = ", ".join(f"{name} ({count})" for name, count in names.most_common()) if schemes else "none"
    findings.ok(CheckName.QUANTIZATION, summary)
    if any(map(findings.has_failed, (CheckName.FILES, CheckName.TENSORS, CheckName.ALIGNMENT))):
        return  # the values of tensors that do not fit mean nothing
    _check_values(layers, schemes, tensors, findings, on_progress)


def _resolve(
    folder: Path, config: ModelConfig, layers: Layers | None, tensors: Mapping[str, Tensor], findings: Findings
) -> Schemes | None:
    """Return how each layer is stored as an engine would read it, as far as it is known; None: as it is."""
    config_fields, where = find_quantization(folder, msgspec.structs.asdict(config))
    try:
        quantization = read_quantization(config_fields, tensors)
        if quantization is None:
            return None
        if layers is None:
            return {}
        schemes = quantization.schemes(layers.modules, findings)
    except SchemeError as error:
        raise SchemeError(f"{where}: {error}") from error
    if HEAD_LAYER in schemes and HEAD_LAYER not in layers.linears:
        findings.fail(CheckName.QUANTIZATION, f"{HEAD_LAYER} shares the embedding's weights: {where} must ignore it")
    return schemes


def _check_values(
    layers: Layers,
    schemes: Schemes,
    tensors: Mapping[str, Tensor],
    findings: Findings,
    on_progress: OnProgress,
) -> None:
    done, total = 0, len(layers.linears) + len(layers.plain)
    scales = 0
    for name in layers.plain:
        check_plain(tensors[name], findings)
        on_progress(done := done + 1, total)
    for module in layers.linears:
        scheme = schemes.get(module)
        for suffix in scale_names(scheme) if scheme else ():
            check_scales(tensors[f"{module}.{suffix}"], findings)
            scales += tensors[f"{module}.{suffix}"].size
        check_linear(module, scheme, tensors, findings)
        on_progress(done := done + 1, total)
    for tensor in cache_scales(tensors):
        check_scales(tensor, findings)
        scales += tensor.size
    if scales:
        findings.ok(CheckName.SCALES, f"{scales} scales, all positive and of one size")
    _say_fine(total, findings)


def _check_tensors(tensors: Mapping[str, Tensor], findings: Findings, on_progress: OnProgress) -> None:
    """Look at each tensor by itself."""
    if findings.has_failed(CheckName.FILES):
        return
    for done, tensor in enumerate(tensors.values(), 1):
        (check_scales if tensor.name.endswith("scale") else check_plain)(tensor, findings)
        on_progress(done, len(tensors))
    _say_fine(len(tensors), findings)


def _say_fine(count: int, findings: Findings) -> None:
    findings.ok(CheckName.WEIGHTS, f"{count} layers and tensors, all finite, none empty")
    findings.ok(CheckName.OUTLIERS, "no channel sticks out")


def _check_size(config: ModelConfig | None, tensors: Mapping[str, Tensor], findings: Findings) -> None:
    size = sum(tensor.end - tensor.begin for tensor in tensors.values())
    layers = layers_of(config) if config else None
    if not size:
        return
    share = f", {size / (2 * parameters(layers)):.0%} of what bf16 takes" if layers else ""
    findings.ok(CheckName.SIZE, f"{size / 1e6:.1f} MB of weights{share}")


def _check_manifest(folder: Path, findings: Findings) -> None:
    """Compare the weights with the digests in the manifest, where bitladder made the checkpoint."""
    manifest = read_manifest(folder)
    if manifest is None:
        if (folder / MANIFEST_NAME).exists():
            findings.warn(CheckName.MANIFEST, f"{MANIFEST_NAME} cannot be read: who made these weights is not known")
        return
    for file in manifest.weights:
        path = folder / file.name
        if not path.is_file():
            findings.fail(CheckName.MANIFEST, f"{file.name} is missing")
        elif file_digest(path) != file.sha256:
            findings.fail(CheckName.MANIFEST, f"{file.name} is not the file that was measured")
    findings.ok(CheckName.MANIFEST, f"made {manifest.made_at}, the weights are those that were measured")


def _peak_bytes() -> int:
    """Return the most memory that this program held; getrusage(2) would count what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
