"""The numbers themselves: NaN, infinities, scales, and channels that stick out. One tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calibration.inspection.scheme import Scheme
from calibration.inspection.tensor_file import FLOATS, Array, Tensor, chunks, decode
from calibration.inspection.unpack import weight_name, weights_of
from calibration.inspection.verdict import CheckName, Findings

# A weight this large overflows float16 once it meets a few activations; trained ones are below a hundred.
_MAX_WEIGHT = 1e4
# Scales spread over few orders of magnitude: a thousand times the median stretches all its neighbours to nothing.
_MAX_SPREAD = 1e4
# Robust z-score (median and MAD of the channels' logarithms) and size against the median: a channel must be both to
# be called an outlier, because in an even layer a small difference has a large score.
_OUTLIER_Z, _OUTLIER_RATIO = 8.0, 16.0
# AWQ moves hundreds of times the usual size into the channel of a massive activation (545 times in SmolLM2's layer 11)
# and takes it out of the layer before; nothing sound reaches thousands.
_ABSURD_RATIO = 5000.0
# Values at the ends of the range, of 8-bit floats: the largest of every channel is there by construction (2 % where
# channels are narrow), more means that the range was too small.
_MAX_SATURATED = 0.05


@dataclass(slots=True)
class _Seen:
    """What went by of one tensor."""

    nan: int = 0
    infinite: int = 0
    largest: float = 0.0
    rows: list[npt.NDArray[np.float64]] = field(default_factory=list)  # sums of squares
    columns: npt.NDArray[np.float64] | None = None

    def add(self, values: Array) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            nan = int(np.isnan(values).sum())
            self.nan += nan
            self.infinite += int(values.size - finite.sum()) - nan
            values = np.where(finite, values, 0)
        self.largest = max(self.largest, float(np.abs(values).max(initial=0)))
        squares = np.square(values, dtype=np.float32) if self.largest < _MAX_WEIGHT else np.square(values, dtype=float)
        self.rows.append(squares.sum(axis=1, dtype=np.float64))
        sums = squares.sum(axis=0, dtype=np.float64)
        self.columns = sums if self.columns is None else self.columns + sums


def check_plain(tensor: Tensor, findings: Findings) -> None:
    """Look at a tensor that is stored as it is: a norm, a bias, an embedding."""
    if tensor.dtype in FLOATS:
        _judge(tensor.name, _see(chunks(tensor)), findings, has_channels=len(tensor.shape) == 2)


def check_linear(module: str, scheme: Scheme | None, tensors: Mapping[str, Tensor], findings: Findings) -> None:
    """Look at the weights of a layer as its kernel will see them."""
    stored = tensors[f"{module}.{weight_name(scheme)}"]
    if stored.dtype.startswith("F8"):
        _check_saturation(stored, findings)
    _judge(stored.name, _see(weights_of(module, scheme, tensors)), findings, has_channels=True)


def check_scales(tensor: Tensor, findings: Findings) -> None:
    """Look at scales: each is a positive finite number, and none dwarfs the others."""
    bad = {"NaN": 0, "infinite": 0, "zero": 0, "negative": 0}
    smallest, largest, medians = np.inf, 0.0, []
    for part in chunks(tensor):
        bad["NaN"] += int(np.isnan(part).sum())
        bad["infinite"] += int(np.isinf(part).sum())
        bad["zero"] += int((part == 0).sum())
        bad["negative"] += int((part < 0).sum())
        good = part[np.isfinite(part) & (part > 0)]
        if good.size:
            smallest, largest = min(smallest, float(good.min())), max(largest, float(good.max()))
            medians.append(float(np.sort(good)[(good.size - 1) // 2]))  # of two the smaller: the other may be wrong
    for what, count in bad.items():
        if count:
            findings.fail(CheckName.SCALES, f"{tensor.name}: {count} of {tensor.size} are {what}")
    if medians and largest > _MAX_WEIGHT:
        findings.fail(CheckName.SCALES, f"{tensor.name}: up to {largest:.3g}, at most {_MAX_WEIGHT:g} makes sense")
    elif medians and largest > _MAX_SPREAD * (median := float(np.median(medians))):
        findings.fail(CheckName.SCALES, f"{tensor.name}: from {smallest:.3g} to {largest:.3g}, around {median:.3g}")


def _outliers(sums: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.intp], float]:
    """Return the channels that stick out, and how many times the median the largest is."""
    size = np.sqrt(sums)
    alive = size[size > 0]
    if alive.size < 8:  # too few for a median to mean anything
        return np.array([], np.intp), 0.0
    logs = np.log(alive)
    middle = float(np.median(logs))
    spread = max(float(np.median(np.abs(logs - middle))), 1e-6)
    with np.errstate(divide="ignore"):
        above = np.log(size) - middle
    odd = np.flatnonzero((0.6745 * above / spread > _OUTLIER_Z) & (above > np.log(_OUTLIER_RATIO)))
    return odd, float(np.exp(above.max()))


def _see(parts: Iterable[Array]) -> _Seen:
    seen = _Seen()
    with np.errstate(over="ignore", invalid="ignore"):  # that is what is looked for
        for part in parts:
            seen.add(part)
    return seen


def _judge(name: str, seen: _Seen, findings: Findings, *, has_channels: bool) -> None:
    for what, count in (("NaN", seen.nan), ("infinite", seen.infinite)):
        if count:
            findings.fail(CheckName.WEIGHTS, f"{name}: {count} values are {what}")
    if seen.largest == 0 and not name.endswith(".bias"):
        findings.fail(CheckName.WEIGHTS, f"{name}: all values are 0")
    if seen.largest > _MAX_WEIGHT:
        findings.fail(CheckName.WEIGHTS, f"{name}: up to {seen.largest:.3g}, at most {_MAX_WEIGHT:g} makes sense")
    if has_channels and seen.columns is not None:
        for axis, sums in (("row", np.concatenate(seen.rows)), ("column", seen.columns)):
            _judge_channels(name, axis, sums, findings)


def _judge_channels(name: str, axis: str, sums: npt.NDArray[np.float64], findings: Findings) -> None:
    odd, ratio = _outliers(sums)
    if odd.size:
        worst = int(np.argmax(sums))
        text = f"{name}: {odd.size} of {sums.size} {axis}s stick out, {axis} {worst} is {ratio:.0f} times the median"
        (findings.fail if ratio > _ABSURD_RATIO else findings.warn)(CheckName.OUTLIERS, text)


def _check_saturation(tensor: Tensor, findings: Findings) -> None:
    limit = float(np.nanmax(decode(np.array([0x7E if tensor.dtype == "F8_E4M3" else 0x7B], np.uint8), tensor.dtype)))
    saturated = sum(int((np.abs(part) >= limit).sum()) for part in chunks(tensor))
    if saturated > _MAX_SATURATED * tensor.size:
        share = saturated / tensor.size
        findings.warn(CheckName.WEIGHTS, f"{tensor.name}: {share:.1%} of the values are at the end of the range")
