"""Which tier would serve a job now: what an explanation says before a worker has claimed it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec


class TierNow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tier at this moment."""

    live: int  # workers
    waiting: int  # jobs, in all its lanes
    free: int  # idle slots


def serving_tier(
    allowed: Sequence[str],
    tiers: Mapping[str, TierNow],
    *,
    overflows: bool,
    eager: Collection[str] = (),
    below: Sequence[str] = (),
) -> str | None:
    """Return the tier that would serve a job, lowest first in `allowed`; None: no tier that may has a live worker.

    The job's own tier does, unless it has no worker, or has no free slot while a higher tier is idle that takes
    overflow (`overflows`) or takes what waits at once (`eager`): the nearest one that has nothing to do for itself.
    Those in `below`, to which its client consented, do where no other lives, the highest first.
    A guess all the same: the worker that claims first decides.
    """
    floor, *above = allowed
    idle = [tier for tier in above if tiers[tier].live and tiers[tier].free > 0 and not tiers[tier].waiting]
    if tiers[floor].free <= 0:
        taking = [tier for tier in idle if overflows or tier in eager]
        if taking:
            return taking[0]
    if tiers[floor].live:
        return floor
    return next((tier for tier in (*idle, *above, *reversed(below)) if tiers[tier].live), None)
