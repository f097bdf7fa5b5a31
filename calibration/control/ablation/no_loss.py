"""What it means where the lowest tier loses nothing: a table of policies would have nothing but empty columns. Pure."""

from __future__ import annotations

from calibration.control.ablation.comparison import Measured

_ZERO = 1e-12


def nothing_lost(measured: Measured, measure: str) -> str | None:
    """Say that there is nothing to compare, where no tier loses anything on any label; None where one does."""
    if measured.losses.any():
        return None
    *below, top = measured.ladder
    return (
        f"Nothing is lost below {top} on any of these {len(measured.losses):,} labels "
        f"({measure} is at {_listed(below)} what it is at {top}): all requests may go to {below[0]}, and there are no "
        "policies to compare. Echo engines answer alike at every tier; of real engines, look at what was labelled."
    )


def nothing_left(measured: Measured, measure: str) -> str | None:
    """Say why columns are empty, where the lowest tier loses something, and on average nothing; None where it does."""
    mean = float(measured.losses[:, 0].mean())
    if mean > _ZERO or not measured.losses.any():
        return None
    lowest, top = measured.ladder[0], measured.ladder[-1]
    return (
        f"On average {lowest} loses nothing beyond {top} on these labels (its mean added {measure} is {mean:.3g}): "
        "shares of that loss mean nothing, and their columns are empty. All requests may go to "
        f"{lowest}; a policy can only gain by the labels on which a dearer tier is better."
    )


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
