"""Fleets: how many workers of each tier there are, on what, and whether the model fits. Pure but for reading a file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bitladder.settings.models_section import ModelSettings
from calibration.errors import InputError
from calibration.simulation.service_curves import Curve

_GB = 1e9
_BYTE = 8


class ModelShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's weights and its KV cache follow from."""

    parameters: float
    layers: int
    kv_heads: int
    head_dim: int
    kv_bits: float = 16

    @property
    def kv_bytes_per_token(self) -> float:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bits / _BYTE


class FleetTier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The workers of one tier."""

    workers: int
    curve: str
    bits: float = 16  # per parameter, on average: scales and what stays unquantized included
    gpus: int = 1  # of one worker
    memory_gb: float = 0  # of one GPU
    utilization: float = 0.9  # share of the memory that the engine may use


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a fleet."""

    tiers: Mapping[str, FleetTier]
    model: ModelShape | None = None  # None: whether it fits is not checked


def read_fleet(file: Path) -> Fleet:
    """Read a fleet.

    Raises:
        InputError: it cannot be read, or holds what cannot be.

    """
    try:
        fleet = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Fleet)
    except OSError as error:
        raise InputError(f"fleet cannot be read: {error}") from error
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{file}: {error}") from error
    shape = fleet.model
    for where, part in (("model", shape), *((f"tiers.{name}", tier) for name, tier in fleet.tiers.items())):
        for field in part.__struct_fields__ if part else ():
            _check(file, f"{where}.{field}", getattr(part, field), may_be_none=field in {"workers", "memory_gb"})
    return fleet


def _check(file: Path, name: str, value: float | str, *, may_be_none: bool) -> None:
    if isinstance(value, str):
        return
    if not (math.isfinite(value) and (value > 0 or (may_be_none and value == 0))):
        raise InputError(f"{file}: {name} must be {'0 or more' if may_be_none else 'above 0'}, got {value:g}")
    if name.endswith((".workers", ".gpus")) and value > 10_000:
        raise InputError(f"{file}: {name} must be 10000 at most, got {value}")
    if name.endswith(".utilization") and value > 1:
        raise InputError(f"{file}: {name} must be 1 at most, got {value:g}")


def check_fleet(fleet: Fleet, model: ModelSettings, curves: Mapping[str, Curve]) -> None:
    """Hold a fleet against the configured ladder and the curves.

    Raises:
        InputError: a tier or a curve is missing, or the curve ends before the tier's slots.

    """
    if set(fleet.tiers) != set(model.ladder):
        raise InputError(f"the fleet must have the tiers {', '.join(model.ladder)}, got {', '.join(fleet.tiers)}")
    for tier in model.tiers:
        name = fleet.tiers[tier.name].curve
        if name not in curves:
            raise InputError(f"tier {tier.name}: curve must be one of {', '.join(curves)}, got {name!r}")
        if (known := curves[name].max_concurrency) < tier.slots:
            raise InputError(
                f"tier {tier.name}: has {tier.slots} slots, but curve {name!r} ends at concurrency {known}: "
                "measure it further, or set fewer slots"
            )


def memory_faults(fleet: Fleet, model: ModelSettings, tokens: float) -> list[str]:
    """Return, for each tier that cannot hold its weights and its slots' KV caches of so many tokens, the arithmetic."""
    if (shape := fleet.model) is None:
        return []
    faults = []
    for tier in model.tiers:
        part = fleet.tiers[tier.name]
        if not part.workers or (fits := fit(shape, part, tier.slots, tokens)).is_fitting:
            continue
        faults.append(f"tier {tier.name} does not fit: {fits.arithmetic(shape, part, tier.slots, tokens)}")
    return faults


class Fit(msgspec.Struct, frozen=True):
    """What one worker needs and has, in GB (10^9 bytes)."""

    weights_gb: float
    kv_gb: float
    usable_gb: float

    @property
    def is_fitting(self) -> bool:
        return self.weights_gb + self.kv_gb <= self.usable_gb

    def arithmetic(self, shape: ModelShape, part: FleetTier, slots: int, tokens: float) -> str:
        """Say how the figures come about."""
        needed = self.weights_gb + self.kv_gb
        return (
            f"weights {shape.parameters / 1e9:g} billion x {part.bits:g} bits / 8 = {self.weights_gb:.1f} GB, "
            f"KV cache {slots} slots x {tokens:.0f} tokens x {shape.kv_bytes_per_token / 1e6:.3f} MB = "
            f"{self.kv_gb:.1f} GB, together {needed:.1f} GB; "
            f"usable {part.gpus} x {part.memory_gb:g} GB x {part.utilization:g} = {self.usable_gb:.1f} GB, "
            f"{needed - self.usable_gb:.1f} GB too few"
        )


def fit(shape: ModelShape, part: FleetTier, slots: int, tokens: float) -> Fit:
    """Return what a worker needs for its weights and for so many tokens in each slot, and what it has."""
    return Fit(
        weights_gb=shape.parameters * part.bits / _BYTE / _GB,
        kv_gb=slots * tokens * shape.kv_bytes_per_token / _GB,
        usable_gb=part.gpus * part.memory_gb * part.utilization,
    )


def workers_of(fleet: Fleet, ladder: Sequence[str]) -> list[int]:
    """Return the number of workers by rank."""
    return [fleet.tiers[name].workers for name in ladder]
