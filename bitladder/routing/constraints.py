"""What an envelope allows on one model's ladder: the tiers that a policy may choose from, and the lane."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from bitladder.errors import RequestError
from bitladder.queue_name import Lane, QueueName
from bitladder.routing.aliases import tiers_of
from bitladder.routing.envelope import Envelope
from bitladder.settings.access import NO_RULES, KeyEnvelope
from bitladder.settings.policy_section import LaneSettings

_LANES = list(Lane)  # urgent first
_NOTHING = (None,) * 5


class Constraints(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a policy may look at beside the score. Ranks are places on the ladder: 0 is the lowest precision."""

    ladder: tuple[str, ...]
    lowest: int  # rank; no policy may go below it
    highest: int  # rank; no policy and no load may go above it
    envelope: Envelope
    allowed: frozenset[int] | None = None  # the ranks allowed, where there are gaps between lowest and highest
    consented: frozenset[int] = frozenset()  # the ranks that may serve below the floor where all above it are full

    @property
    def ceiling(self) -> str | None:
        """The highest tier allowed; None where that is the top of the ladder."""
        return self.ladder[self.highest] if self.highest < len(self.ladder) - 1 else None

    def nearest(self, rank: int) -> int:
        """Return the rank allowed that a policy's choice is moved to: itself, or the next above, or the highest."""
        bounded = min(max(rank, self.lowest), self.highest)
        if self.allowed is None or bounded in self.allowed:
            return bounded
        return min(other for other in self.allowed if other > bounded)  # the highest is one of them

    def within(self, lowest: int, highest: int, consented: frozenset[int]) -> Constraints | None:
        """Return what is left of these constraints between two ranks; None: nothing is."""
        ranks = frozenset(
            rank for rank in self.allowed or range(self.lowest, self.highest + 1) if lowest <= rank <= highest
        )
        if not ranks:
            return None
        low, high = min(ranks), max(ranks)
        allowed = ranks if len(ranks) <= high - low else None
        kept = self.consented & consented
        return msgspec.structs.replace(self, lowest=low, highest=high, allowed=allowed, consented=kept)

    def queue(self, model: str, floor: str, lane: Lane) -> QueueName:
        """Return where a job with this floor waits: a queue of those tiers that may serve it."""
        rank = self.ladder.index(floor)
        if self.allowed is None and not self.consented:
            return QueueName(model, floor, lane, self.ceiling)
        above = self.allowed or range(self.lowest, self.highest + 1)
        serving = {other for other in above if other >= rank} | {other for other in self.consented if other < rank}
        return QueueName.of(model, floor, lane, tuple(self.ladder[other] for other in sorted(serving)), self.ladder)


class _Limit(NamedTuple):
    """One thing that says which tiers are allowed."""

    param: str  # what an error names: a header, a field of the body; '': the API key
    words: str
    ranks: frozenset[int]


def constraints_of(envelope: Envelope, ladder: tuple[str, ...], chosen: str | None = None) -> Constraints:
    """Return what the envelope allows on this ladder; `chosen`: the only tier allowed, as the model's name says.

    Raises:
        RequestError: the envelope names an unknown tier, or two things in it contradict each other.

    """
    if _is_unlimited(envelope, chosen):
        return Constraints(ladder=ladder, lowest=0, highest=len(ladder) - 1, envelope=envelope)
    ranks = frozenset(range(len(ladder)))
    limits = list(_limits(envelope, ladder, chosen))
    for place, limit in enumerate(limits):
        if not ranks & limit.ranks:
            raise _contradiction(limits[:place], limit, ladder)
        ranks &= limit.ranks
    ranks = _with_defaults(ranks, envelope, ladder)
    lowest, highest = min(ranks), max(ranks)
    return Constraints(
        ladder=ladder,
        lowest=lowest,
        highest=highest,
        envelope=envelope,
        allowed=ranks if len(ranks) <= highest - lowest else None,
        consented=_consented(envelope, ladder, chosen, highest),
    )


def _is_unlimited(envelope: Envelope, chosen: str | None) -> bool:
    """Return whether neither request nor key says anything of tiers, as most do not: they pay for no sets."""
    named = (chosen, envelope.min_tier, envelope.max_tier, envelope.quantizations, envelope.below_floor)
    key = envelope.key
    return named == _NOTHING and key.defaults is NO_RULES.defaults and key.limits is NO_RULES.limits


def _limits(envelope: Envelope, ladder: tuple[str, ...], chosen: str | None) -> Iterator[_Limit]:
    """Yield what a request must keep to, first what its key says."""
    top, limits = len(ladder), envelope.key.limits
    for field in ("floor", "ceiling"):
        if (tier := getattr(limits, field)) is not None:
            words = f"limits.{field} of the API key {envelope.key.name} ({tier})"
            if tier not in ladder:
                raise RequestError(f"{words} must be one of the model's tiers: {', '.join(ladder)}", param="model")
            rank = ladder.index(tier)
            yield _Limit("", words, frozenset(range(rank, top) if field == "floor" else range(rank + 1)))
    if envelope.max_tier is not None:
        rank = _rank(envelope.max_tier, ladder, "X-Max-Tier")
        yield _Limit("X-Max-Tier", f"X-Max-Tier ({envelope.max_tier})", frozenset(range(rank + 1)))
    if envelope.min_tier is not None:
        rank = _rank(envelope.min_tier, ladder, "X-Min-Tier")
        yield _Limit("X-Min-Tier", f"X-Min-Tier ({envelope.min_tier})", frozenset(range(rank, top)))
    if envelope.quantizations is not None:
        words = f"provider.quantizations ({', '.join(envelope.quantizations)[:200]})"
        yield _Limit("provider.quantizations", words, tiers_of(envelope.quantizations, ladder))
    if chosen is not None:
        yield _Limit("model", f"the tier in the model's name ({chosen})", frozenset([ladder.index(chosen)]))


def _contradiction(before: list[_Limit], limit: _Limit, ladder: tuple[str, ...]) -> RequestError:
    # Where no single one is to blame, all of them together are.
    others = [other for other in before if not other.ranks & limit.ranks][:1] or before
    names = " and ".join(other.words for other in others)
    return RequestError(
        f"{names} and {limit.words} contradict each other: no tier of {', '.join(ladder)} is left",
        param=limit.param or None,
    )


def _with_defaults(ranks: frozenset[int], envelope: Envelope, ladder: tuple[str, ...]) -> frozenset[int]:
    """Return the tiers within the key's defaults, each where the request says nothing and it leaves a tier."""
    defaults: KeyEnvelope = envelope.key.defaults
    if defaults.floor in ladder and envelope.min_tier is None:
        ranks = frozenset(rank for rank in ranks if rank >= ladder.index(defaults.floor)) or ranks
    if defaults.ceiling in ladder and envelope.max_tier is None:
        ranks = frozenset(rank for rank in ranks if rank <= ladder.index(defaults.ceiling)) or ranks
    return ranks


def _consented(envelope: Envelope, ladder: tuple[str, ...], chosen: str | None, highest: int) -> frozenset[int]:
    """Return the tiers that the request consents to below its floor. A set of tiers and the key's limit still hold."""
    key, requested = envelope.key, envelope.below_floor
    if requested and key.limits.allow_below_floor is False:
        raise RequestError(
            f"X-Allow-Below-Floor (true) and limits.allow_below_floor of the API key {key.name} (false) contradict "
            "each other",
            param="X-Allow-Below-Floor",
        )
    if requested and chosen is not None:
        raise RequestError(
            f"X-Allow-Below-Floor (true) and the tier in the model's name ({chosen}) contradict each other: that tier "
            "alone may serve it",
            param="X-Allow-Below-Floor",
        )
    consents = key.defaults.allow_below_floor if requested is None else requested
    if not consents or key.limits.allow_below_floor is False or chosen is not None:
        return frozenset()
    lowest = ladder.index(key.limits.floor) if key.limits.floor else 0
    named = range(len(ladder)) if envelope.quantizations is None else tiers_of(envelope.quantizations, ladder)
    return frozenset(rank for rank in named if lowest <= rank <= highest)


def lane_of(envelope: Envelope, lanes: LaneSettings) -> Lane:
    """Return the lane that was asked for, or the one that the priority means; none more urgent than the key may use."""
    lane = envelope.lane or _by_priority(envelope.priority, lanes)
    most_urgent = envelope.key.limits.lane
    return lane if most_urgent is None else max(lane, most_urgent, key=_LANES.index)


def _by_priority(priority: int, lanes: LaneSettings) -> Lane:
    if priority >= lanes.urgent_from:
        return Lane.URGENT
    return Lane.BATCH if priority <= lanes.batch_to else Lane.NORMAL


def _rank(name: str, ladder: tuple[str, ...], param: str) -> int:
    if name not in ladder:
        raise RequestError(f"{param} must be one of {', '.join(ladder)}, got {name!r}", param=param)
    return ladder.index(name)
