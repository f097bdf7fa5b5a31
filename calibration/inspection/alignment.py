"""Group and block sizes against the widths of the layers, and against what vLLM's kernels take.

The rules are those of vLLM 0.32 (model_executor/kernels/linear): what no kernel takes fails, what only some take is a
warning, because the tier's hardware decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calibration.inspection.model import Layers
from calibration.inspection.quantization import Schemes
from calibration.inspection.scheme import Layout, Scheme
from calibration.inspection.verdict import CheckName, Findings

# Marlin, which every NVIDIA GPU from sm_80 on uses; it pads tiles itself. Per channel counts as well.
_GPU_GROUPS = (32, 64, 128)
# CPUWNA16LinearKernel: widths in whole vectors of 32.
_CPU_WIDTH = 32
# Cutlass' W8A8 kernels read 16 values at once; other widths fall back to a slower one.
_CUTLASS_WIDTH = 16
# CPUFp8BlockScaledMMKernel.
_CPU_BLOCK_COLUMNS, _CPU_BLOCK_ROWS = 128, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    """The sizes of a module: of one layer, or of several that an engine puts on top of one another."""

    outputs: tuple[int, ...]
    inputs: int


def check_alignment(layers: Layers, schemes: Schemes, findings: Findings) -> None:
    count = 0
    for module in layers.modules:
        sizes = [layers.linears[name] for name in module.layers if name in layers.linears]
        for scheme in {schemes[name] for name in module.layers if name in schemes} if sizes else ():
            stack = _Stack(outputs=tuple(outputs for outputs, _ in sizes), inputs=sizes[0][1])
            count += 1
            for text, is_fatal in _misfits(stack, scheme):
                (findings.fail if is_fatal else findings.warn)(CheckName.ALIGNMENT, f"{module.shown}: {text}")
    findings.ok(CheckName.ALIGNMENT, f"sizes fit the widths and kernels of {count} stacks of layers")


def _misfits(stack: _Stack, scheme: Scheme) -> Iterator[tuple[str, bool]]:
    """Yield what does not fit, and whether nothing can serve it."""
    if scheme.strategy == "group":
        yield from _group_misfits(stack, scheme)
    if scheme.strategy == "block":
        yield from _block_misfits(stack, scheme.block)
    if scheme.layout in (Layout.INT, Layout.FLOAT):
        for what, width in (("inputs", stack.inputs), ("outputs", sum(stack.outputs))):
            if width % _CUTLASS_WIDTH:
                yield f"{width} {what} are no multiple of {_CUTLASS_WIDTH}: no fast W8A8 kernel on a GPU", False


def _group_misfits(stack: _Stack, scheme: Scheme) -> Iterator[tuple[str, bool]]:
    size, outputs = scheme.group_size, sum(stack.outputs)
    if stack.inputs % size:
        yield f"group size {size} does not divide {stack.inputs} inputs", True
    packed = "inputs" if scheme.layout is Layout.PACKED else "outputs"
    for output in stack.outputs:
        width = stack.inputs if packed == "inputs" else output
        if width % scheme.per_word:
            yield f"{width} {packed} are no whole words of {scheme.per_word} packed values", True
    fits_cpu = not (size % 2 or stack.inputs % _CPU_WIDTH or outputs % _CPU_WIDTH)
    fits_gpu = size in _GPU_GROUPS
    if not fits_gpu:
        yield f"group size {size} is none of {', '.join(map(str, _GPU_GROUPS))}, which GPU kernels take", not fits_cpu
    if not fits_cpu:
        yield f"{stack.inputs} x {outputs} in groups of {size} fit no CPU kernel (multiples of {_CPU_WIDTH})", False


def _block_misfits(stack: _Stack, block: tuple[int, int]) -> Iterator[tuple[str, bool]]:
    rows, columns = block
    for output in stack.outputs[:-1]:  # a block must not lie across two layers; the last may end early
        if output % rows:
            yield f"blocks of {rows} rows do not divide {output} outputs that others are stacked on", True
    if columns != _CPU_BLOCK_COLUMNS or rows % _CPU_BLOCK_ROWS:
        yield f"blocks of {rows} x {columns} fit no CPU kernel ({_CPU_BLOCK_ROWS}n x {_CPU_BLOCK_COLUMNS})", False
