"""What every policy is: a pure function from a score and constraints to a decision."""

from __future__ import annotations

from typing import Protocol

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import Constraints


class Policy(Protocol):
    """Chooses the lowest tier that a request may be served at."""

    @property
    def name(self) -> str:
        """As the setting policy.name and the decisions have it."""

    @property
    def version(self) -> int:
        """Counted up with every change after which the same score may be decided otherwise."""

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it reads; no others are computed."""

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        """Choose a floor within the constraints, and say why. Pure: the same arguments give the same decision."""


def decision(policy: Policy, rank: int, reason: str, score: Score, constraints: Constraints) -> Decision:
    """Return the decision for the tier at `rank`, moved into what the constraints allow."""
    bounded = min(max(rank, constraints.lowest), constraints.highest)
    if bounded != rank:
        reason += f", {'raised to a minimum' if bounded > rank else 'held at a maximum'}"
    return Decision(
        policy=policy.name, version=policy.version, floor=constraints.ladder[bounded], reason=reason, score=score
    )
