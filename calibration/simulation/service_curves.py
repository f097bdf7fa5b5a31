"""Service curves of a file, for the commands of calibration."""

from __future__ import annotations

from pathlib import Path

from bitladder.errors import ConfigError
from bitladder.workload import speed_curves
from bitladder.workload.speed_curves import Curve, Point
from calibration.errors import InputError

__all__ = ["Curve", "Point", "read_curves"]


def read_curves(file: Path) -> dict[str, Curve]:
    """Read a file of curves by their names, all of them checked.

    Raises:
        InputError: a curve has a hole, a value that cannot be, or is not monotone where it must be.

    """
    try:
        return speed_curves.read_curves(file)
    except ConfigError as error:
        raise InputError(str(error)) from error
