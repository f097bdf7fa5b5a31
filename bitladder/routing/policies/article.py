"""From score and envelope to the floor tier, with the reason: pure functions."""

from __future__ import annotations

import msgspec

from bitladder.contract import Envelope, Lane
from bitladder.errors import RequestError
from bitladder.settings.policy_section import LaneSettings, PolicySettings


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request may be served, and why."""

    floor: str
    ceiling: str | None  # None: the top of the ladder
    lane: Lane
    reason: str


def choose_route(
    entropy: float, envelope: Envelope, ladder: tuple[str, ...], policy: PolicySettings, lanes: LaneSettings
) -> Route:
    """Choose floor, ceiling and lane of one request.

    Raises:
        RequestError: the envelope names an unknown tier, or a minimum above its maximum.

    """
    lowest = _rank(envelope.min_tier, ladder, "X-Min-Tier", default=0)
    highest = _rank(envelope.max_tier, ladder, "X-Max-Tier", default=len(ladder) - 1)
    if lowest > highest:
        raise RequestError(
            f"X-Min-Tier ({ladder[lowest]}) must not be above X-Max-Tier ({ladder[highest]})",
            param="X-Min-Tier",
        )
    wanted, reason = _wanted(entropy, envelope, ladder, policy)
    rank = min(max(wanted, lowest), highest)
    if rank != wanted:
        reason += f", {'raised by X-Min-Tier' if rank > wanted else 'held by X-Max-Tier'}"
    ceiling = ladder[highest] if highest < len(ladder) - 1 else None
    return Route(floor=ladder[rank], ceiling=ceiling, lane=_lane(envelope, lanes), reason=reason)


def _wanted(entropy: float, envelope: Envelope, ladder: tuple[str, ...], policy: PolicySettings) -> tuple[int, str]:
    kind, _, fixed = policy.name.partition(":")
    if kind == "fixed":
        return ladder.index(fixed), f"policy fixed:{fixed}"
    return _article(entropy, envelope, ladder, policy)


def _article(entropy: float, envelope: Envelope, ladder: tuple[str, ...], policy: PolicySettings) -> tuple[int, str]:
    """Apply the rule bitladder began with: the important and the patient to the top, high entropy to the middle."""
    top, middle = len(ladder) - 1, len(ladder) // 2
    if envelope.priority >= policy.top_priority:
        return top, f"priority {envelope.priority} >= {policy.top_priority}"
    if envelope.max_latency_ms > policy.patient_ms:
        return top, f"max latency {envelope.max_latency_ms} ms > {policy.patient_ms} ms"
    if entropy > policy.entropy_bits:
        return middle, f"entropy {entropy:.2f} > {policy.entropy_bits:g}"
    return 0, f"entropy {entropy:.2f} <= {policy.entropy_bits:g}"


def _lane(envelope: Envelope, lanes: LaneSettings) -> Lane:
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
