"""What is to be done when a promise is broken: the highest limit that the newest labels prove, or why there is none.

Only labels behind the alarm count: those before it are partly of the traffic that was before, on which too much would
be proven. They are looked at when there are 100, 200, 400 and so on, and each look has half of the delta that is left:
a test that is repeated until it succeeds would prove anything. A tier that a lower limit would choose and nobody
measured counts as lost. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.control.drift.drift_promise import MeanPromise, Promise
from calibration.control.drift.stream_lines import Label
from calibration.control.promise import high_probability, labels_needed, mean_labels_needed
from calibration.control.scores import chosen_tiers, fixed_limits

Numbers = NDArray[np.float64]
_FIRST_LOOK = 100


class NextStep(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest labels say."""

    labels: int  # that were looked at
    unmeasured: int  # of them, at the limit or at the one in force, counted as lost
    limit: float | None  # the highest that is proven; None: not even the safest is
    low_share: float  # the share of the labels that it sends below the top
    risk: float  # over all requests, among these labels
    more_labels: int | None = None  # until a limit with `min_low_share` would be proven; None: no number proves it
    is_enough: bool  # the proven limit sends at least `min_low_share` below the top


def candidate_limits(bounds: Numbers, in_force: float) -> Numbers:
    """Return limits up to the one in force, the lowest first, as `tune` goes up in the reference's bounds."""
    below = bounds[bounds <= in_force]
    steps = fixed_limits(below, bounds.shape[1]) if len(below) else below
    return np.unique(np.append(steps, in_force))


def next_step(labels: Sequence[Label], limits: Numbers, promise: Promise, *, min_low_share: float = 0.05) -> NextStep:
    """Return what these labels allow; the last of the limits is the one in force."""
    count, labels, delta, next_look = len(labels), *_look(labels, promise.delta)
    tiers = len(labels[0].bounds) if labels else 1
    bounds = np.array([label.bounds for label in labels]).reshape(-1, tiers)
    losses = np.array([[*label.losses, 0.0] for label in labels], dtype=float).reshape(-1, tiers + 1)  # None: NaN
    table = [_under(bounds, losses, float(limit)) for limit in limits]
    candidates = [lost for lost, _, _ in table]
    place = high_probability(candidates, promise.among_labels, delta)
    shares = [float(low.mean()) if len(low) else 0.0 for _, low, _ in table]
    is_enough = place is not None and shares[place] >= min_low_share
    more = None
    if not is_enough:
        # The first limit that would be worth it; where none is, the last.
        target = next((at for at, share in enumerate(shares) if share >= min_low_share), len(limits) - 1)
        needed = _labels_needed(candidates[target], promise, delta / 2)
        more = None if needed is None else max(needed, next_look) - count
    at = 0 if place is None else place
    return NextStep(
        labels=len(labels),
        unmeasured=int(table[at][2].sum()),
        limit=None if place is None else float(limits[place]),
        low_share=0.0 if place is None else shares[place],
        risk=promise.risk(float(candidates[at].mean())) if labels else 0.0,
        more_labels=more,
        is_enough=is_enough,
    )


def _look(labels: Sequence[Label], delta: float) -> tuple[Sequence[Label], float, int]:
    """Return the labels of the last look, its delta, and at how many labels the next one is."""
    size, looks = _FIRST_LOOK, 0
    while size <= len(labels):
        size, looks = 2 * size, looks + 1
    return labels[: size // 2 if looks else 0], delta / 2 ** max(1, looks), size


def _labels_needed(losses: Numbers, promise: Promise, delta: float) -> int | None:
    if isinstance(promise, MeanPromise) and len(losses):
        return mean_labels_needed(losses, promise.among_labels, delta, beyond=len(losses))
    risk = float(losses.mean()) if len(losses) else 0.0
    return labels_needed(risk, promise.among_labels, delta, beyond=len(losses))


def _under(bounds: Numbers, losses: Numbers, limit: float) -> tuple[Numbers, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return of each label what it loses under a limit, whether it is below the top, and was not measured there."""
    tiers = chosen_tiers(bounds, limit)
    lost = losses[np.arange(len(losses)), tiers]
    unmeasured = np.isnan(lost)
    return np.where(unmeasured, 1.0, lost), tiers < bounds.shape[1], unmeasured
