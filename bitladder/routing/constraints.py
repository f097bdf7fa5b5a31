"""What an envelope allows on one model's ladder: the tiers that a policy may choose from, and the lane."""

from __future__ import annotations

import msgspec

from bitladder.contract import Lane
from bitladder.errors import RequestError
from bitladder.routing.envelope import Envelope
from bitladder.settings.policy_section import LaneSettings


class Constraints(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a policy may look at beside the score. Ranks are places on the ladder: 0 is the lowest precision."""

    ladder: tuple[str, ...]
    lowest: int  # rank; no policy may go below it
    highest: int  # rank; no policy and no load may go above it
    envelope: Envelope

    @property
    def ceiling(self) -> str | None:
        """The highest tier allowed; None where that is the top of the ladder."""
        return self.ladder[self.highest] if self.highest < len(self.ladder) - 1 else None


def constraints_of(envelope: Envelope, ladder: tuple[str, ...], chosen: str | None = None) -> Constraints:
    """Return what the envelope allows on this ladder; `chosen`: the only tier allowed, as the model's name says.

    Raises:
        RequestError: the envelope names an unknown tier, a minimum above its maximum, or not the chosen tier.

    """
    lowest = _rank(envelope.min_tier, ladder, "X-Min-Tier", default=0)
    highest = _rank(envelope.max_tier, ladder, "X-Max-Tier", default=len(ladder) - 1)
    if lowest > highest:
        raise RequestError(
            f"X-Min-Tier ({ladder[lowest]}) must not be above X-Max-Tier ({ladder[highest]})",
            param="X-Min-Tier",
        )
    if chosen is not None:
        if not lowest <= ladder.index(chosen) <= highest:
            raise RequestError(
                f"the model's name chooses the tier {chosen}, but the headers allow {ladder[lowest]} (X-Min-Tier) to "
                f"{ladder[highest]} (X-Max-Tier) only",
                param="model",
            )
        lowest = highest = ladder.index(chosen)
    return Constraints(ladder=ladder, lowest=lowest, highest=highest, envelope=envelope)


def lane_of(envelope: Envelope, lanes: LaneSettings) -> Lane:
    """Return the lane that was asked for, or the one that the priority means."""
    if envelope.lane is not None:
        return envelope.lane
    if envelope.priority >= lanes.urgent_from:
        return Lane.URGENT
    return Lane.BATCH if envelope.priority <= lanes.batch_to else Lane.NORMAL


def _rank(name: str | None, ladder: tuple[str, ...], param: str, *, default: int) -> int:
    if name is None:
        return default
    if name not in ladder:
        raise RequestError(f"{param} must be one of {', '.join(ladder)}, got {name!r}", param=param)
    return ladder.index(name)
