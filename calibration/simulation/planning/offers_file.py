"""What may be rented: devices, their prices, and how fast each runs the model at which precision.

Pure but for reading a file.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from calibration.errors import InputError
from calibration.simulation.fleet_file import FleetTier, ModelShape
from calibration.simulation.service_curves import Curve, Point

_MAX_OPTIONS = 64
_MAX_BYTES = 1_000_000


class Precision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model at one tier of the ladder on one device."""

    curve: str
    bits: float = 16  # per parameter, on average: scales and what stays unquantized included
    gpus: int = 1  # of one worker
    scale: float = 1  # how fast it is, as a share of its curve
    reason: str = ""  # of the scale


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A type of GPU that may be rented."""

    price_per_hour: float  # of one GPU
    memory_gb: float
    tiers: Mapping[str, Precision]
    count: int | None = None  # GPUs that there are; None: as many as are wanted
    utilization: float = 0.9  # share of the memory that the engine may use


class Offers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of offers."""

    ladder: tuple[str, ...]  # tiers, lowest quality first
    model: ModelShape
    devices: Mapping[str, Device]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A worker that may be rented: a device at one tier."""

    device: str
    tier: str
    rank: int  # of the tier, 0 is the lowest
    curve: Curve  # scaled
    part: FleetTier  # its memory
    price_per_hour: float  # of one worker

    @property
    def name(self) -> str:
        return f"{self.tier}-{self.device}"


def read_offers(file: Path) -> Offers:
    """Read offers.

    Raises:
        InputError: the file cannot be read, or holds what cannot be.

    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file}: at most {_MAX_BYTES:,} bytes are read")
        offers = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Offers)
    except OSError as error:
        raise InputError(f"offers cannot be read: {error}") from error
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{file}: {error}") from error
    if wrong := _fault(offers):
        raise InputError(f"{file}: {wrong}")
    return offers


def _fault(offers: Offers) -> str:
    """Return what is wrong; '': nothing is."""
    if not offers.ladder or len(set(offers.ladder)) != len(offers.ladder):
        return f"ladder must be different tiers, lowest quality first, got {', '.join(offers.ladder) or 'none'}"
    for name in ModelShape.__struct_fields__:
        if wrong := _positive(f"model.{name}", getattr(offers.model, name)):
            return wrong
    if not 0 < sum(len(device.tiers) for device in offers.devices.values()) <= _MAX_OPTIONS:
        return f"devices must have 1 to {_MAX_OPTIONS} tiers together"
    return next(
        (wrong for name, device in offers.devices.items() if (wrong := _device_fault(offers, name, device))), ""
    )


def _device_fault(offers: Offers, name: str, device: Device) -> str:
    where = f"devices.{name}"
    for field in ("price_per_hour", "memory_gb", "utilization"):
        if wrong := _positive(f"{where}.{field}", getattr(device, field)):
            return wrong
    if device.utilization > 1:
        return f"{where}.utilization must be 1 at most, got {device.utilization:g}"
    if device.count is not None and device.count < 0:
        return f"{where}.count must be 0 or more, got {device.count}"
    faults = (_precision_fault(offers, f"{where}.tiers", tier, item) for tier, item in device.tiers.items())
    return next(filter(None, faults), "")


def _precision_fault(offers: Offers, where: str, tier: str, precision: Precision) -> str:
    if tier not in offers.ladder:
        return f"{where}.{tier}: tier must be one of {', '.join(offers.ladder)}"
    for field in ("bits", "gpus", "scale"):
        if wrong := _positive(f"{where}.{tier}.{field}", getattr(precision, field)):
            return wrong
    if precision.scale != 1 and not precision.reason.strip():
        return f"{where}.{tier}.reason must say why the curve is scaled by {precision.scale:g}"
    return ""


def _positive(name: str, value: float) -> str:
    return "" if math.isfinite(value) and 0 < value < 1e15 else f"{name} must be above 0 and finite, got {value:g}"


def options_of(offers: Offers, curves: Mapping[str, Curve], *, as_measured: bool = False) -> list[Option]:
    """Return every worker that may be rented; `as_measured`: without the scales of the file.

    Raises:
        InputError: a curve is missing.

    """
    options = []
    for name, device in offers.devices.items():
        for tier, precision in device.tiers.items():
            if precision.curve not in curves:
                raise InputError(
                    f"devices.{name}.tiers.{tier}: curve must be one of {', '.join(curves)}, got {precision.curve!r}"
                )
            curve = curves[precision.curve]
            options.append(
                Option(
                    device=name,
                    tier=tier,
                    rank=offers.ladder.index(tier),
                    curve=curve if as_measured else _scaled(curve, precision),
                    part=FleetTier(
                        1, precision.curve, precision.bits, precision.gpus, device.memory_gb, device.utilization
                    ),
                    price_per_hour=device.price_per_hour * precision.gpus,
                )
            )
    return sorted(options, key=lambda option: (option.rank, option.price_per_hour, option.device))


def _scaled(curve: Curve, precision: Precision) -> Curve:
    if precision.scale == 1:
        return curve
    points = tuple(
        Point(
            point.concurrency,
            point.ttft_s / precision.scale,
            time_per_token_s=(point.per_token_s or 0.0) / precision.scale,
        )
        for point in curve.points
    )
    mode = f"{curve.mode}, speed times {precision.scale:g}: {precision.reason}"
    return msgspec.structs.replace(curve, points=points, mode=mode)
