"""Group and block sizes against the widths of the layers, and against what vLLM's kernels take.

The rules are those of vLLM 0.32 (model_executor/kernels/linear): what no kernel takes fails, what only some take is a
warning, because the tier's hardware decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calibration.inspection.model import Layers
from calibration.inspection.scheme import Layout, Quantization, Scheme
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
class Stack:
    """Layers that an engine puts on top of one another before its kernel sees them."""

    modules: tuple[str, ...]
    outputs: tuple[int, ...]
    inputs: int

    @property
    def name(self) -> str:
        head, *rest = self.modules
        return "+".join([head, *(module.rpartition(".")[2] for module in rest)])


def check_alignment(layers: Layers, quantization: Quantization, findings: Findings) -> None:
    count = 0
    for names in layers.stacks:
        schemes = {quantization.scheme_of(name) for name in names}
        stack = Stack(
            modules=names,
            outputs=tuple(layers.linears[name][0] for name in names),
            inputs=layers.linears[names[0]][1],
        )
        if len(schemes) > 1:
            findings.fail(CheckName.ALIGNMENT, f"{stack.name} are stacked and must be quantized alike")
        for scheme in schemes - {None}:
            assert scheme  # noqa: S101  (None was taken out)
            count += 1
            for text, is_fatal in _misfits(stack, scheme):
                (findings.fail if is_fatal else findings.warn)(CheckName.ALIGNMENT, f"{stack.name}: {text}")
    findings.ok(CheckName.ALIGNMENT, f"sizes fit the widths and kernels of {count} stacks of layers")


def _misfits(stack: Stack, scheme: Scheme) -> Iterator[tuple[str, bool]]:
    """Yield what does not fit, and whether nothing can serve it."""
    if scheme.strategy == "group":
        yield from _group_misfits(stack, scheme)
    if scheme.strategy == "block":
        yield from _block_misfits(stack, scheme.block)
    if scheme.layout in (Layout.INT, Layout.FLOAT):
        for what, width in (("inputs", stack.inputs), ("outputs", sum(stack.outputs))):
            if width % _CUTLASS_WIDTH:
                yield f"{width} {what} are no multiple of {_CUTLASS_WIDTH}: no fast W8A8 kernel on a GPU", False


def _group_misfits(stack: Stack, scheme: Scheme) -> Iterator[tuple[str, bool]]:
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


def _block_misfits(stack: Stack, block: tuple[int, int]) -> Iterator[tuple[str, bool]]:
    rows, columns = block
    for output in stack.outputs[:-1]:  # a block must not lie across two layers; the last may end early
        if output % rows:
            yield f"blocks of {rows} rows do not divide {output} outputs that others are stacked on", True
    if columns != _CPU_BLOCK_COLUMNS or rows % _CPU_BLOCK_ROWS:
        yield f"blocks of {rows} x {columns} fit no CPU kernel ({_CPU_BLOCK_ROWS}n x {_CPU_BLOCK_COLUMNS})", False
