"""Service curves: how fast one worker writes, by how many jobs it has at once. Pure but for reading a file.

Simulations go by them, and the echo engine where it stands for a real one. Measured curves belong to a source, a
device, an engine's version and a mode, so a file says these beside each.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from pathlib import Path

import msgspec

from bitladder.errors import ConfigError

_MAX_BYTES = 10_000_000
_MAX_STEP = 8  # from a concurrency to the next: a curve with wider steps has a hole


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one worker does at a concurrency: one of the first two must be there."""

    concurrency: int
    ttft_s: float  # from a job's begin in the engine to its first token
    tokens_per_s: float | None = None  # of all jobs together
    time_per_token_s: float | None = None  # of one job, behind its first token

    @property
    def per_token_s(self) -> float | None:
        if self.time_per_token_s is not None or self.tokens_per_s is None:
            return self.time_per_token_s
        return self.concurrency / self.tokens_per_s if self.tokens_per_s > 0 else -1.0


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One worker's speed over load."""

    name: str
    source: str
    device: str
    version: str
    mode: str  # such as measured, or computed and how
    points: tuple[Point, ...]
    input_tokens: int | None = (
        None  # of the prompts for which ttft_s holds; it grows with their length. Unset: it does not
    )

    @property
    def max_concurrency(self) -> int:
        return self.points[-1].concurrency

    def job_rates(self, slots: int) -> list[float]:
        """Return the tokens that one job gets in a second, by the jobs beside it (from 0, which is a stand-in)."""
        per_token = [point.per_token_s or 0.0 for point in self.points]
        return [1 / self._between(max(1, jobs), per_token) for jobs in range(slots + 1)]

    def first_token_s(self, slots: int) -> list[float]:
        """Return the time to the first token, by jobs."""
        return [self._between(max(1, jobs), [point.ttft_s for point in self.points]) for jobs in range(slots + 1)]

    def _between(self, jobs: int, values: list[float]) -> float:
        loads = [point.concurrency for point in self.points]
        right = bisect_left(loads, jobs)
        if loads[right] == jobs:
            return values[right]
        share = (jobs - loads[right - 1]) / (loads[right] - loads[right - 1])
        return values[right - 1] + share * (values[right] - values[right - 1])


class _File(msgspec.Struct, forbid_unknown_fields=True):
    curves: tuple[Curve, ...]


def read_curves(file: Path) -> dict[str, Curve]:
    """Read a file of curves by their names, all of them checked.

    Raises:
        ConfigError: a curve has a hole, a value that cannot be, or is not monotone where it must be.

    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{file}: at most {_MAX_BYTES:,} bytes are read")
        content = msgspec.json.decode(file.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"curves cannot be read: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}") from error
    curves: dict[str, Curve] = {}
    for curve in content.curves:
        if curve.name in curves:
            raise ConfigError(f"{file}: there are two curves {curve.name!r}")
        if wrong := fault_of(curve):
            raise ConfigError(f"{file}: curve {curve.name!r}: {wrong}")
        curves[curve.name] = curve
    return curves


def fault_of(curve: Curve) -> str:
    """Return what is wrong with a curve; '': nothing is."""
    blank = [name for name in ("name", "source", "device", "version", "mode") if not getattr(curve, name).strip()]
    if blank:
        return f"{blank[0]} must say something"
    if curve.input_tokens is not None and curve.input_tokens < 1:
        return f"input_tokens must be at least 1, got {curve.input_tokens}"
    if not curve.points or curve.points[0].concurrency != 1:
        return "the first point must be that of concurrency 1"
    return next((wrong for point in curve.points if (wrong := _point_fault(point))), "") or next(
        (wrong for lower, upper in pairwise(curve.points) if (wrong := _step_fault(lower, upper))), ""
    )


def _point_fault(point: Point) -> str:
    at = f"at concurrency {point.concurrency}"
    if point.per_token_s is None:
        return f"there is a hole {at}: neither tokens_per_s nor time_per_token_s"
    if point.tokens_per_s is not None and point.time_per_token_s is not None:
        return f"tokens_per_s and time_per_token_s both stand {at}: one of them must go"
    if not 0 < point.per_token_s < 1e6:
        name = "tokens_per_s" if point.time_per_token_s is None else "time_per_token_s"
        return f"{name} must be above 0 and finite {at}, got {getattr(point, name):g}"
    return f"ttft_s must be 0 or more and finite {at}, got {point.ttft_s:g}" if not 0 <= point.ttft_s < 1e6 else ""


def _step_fault(lower: Point, upper: Point) -> str:
    steps = f"from concurrency {lower.concurrency} to {upper.concurrency}"
    if upper.concurrency <= lower.concurrency:
        return f"concurrencies must grow, got {upper.concurrency} behind {lower.concurrency}"
    if upper.concurrency > _MAX_STEP * lower.concurrency:
        return f"there is a hole {steps}: a step must be {_MAX_STEP} times at most"
    before, after = lower.per_token_s or 0.0, upper.per_token_s or 0.0
    if after < before * (1 - 1e-9):
        return f"one job's time per token must not fall with load, but does {steps}: {before:g} s to {after:g} s"
    if upper.ttft_s < lower.ttft_s:
        return f"ttft_s must not fall with load, but does {steps}: {lower.ttft_s:g} to {upper.ttft_s:g}"
    return ""
