"""The same tier for every request: fixed:<tier>."""

from __future__ import annotations

import msgspec

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import decision
from bitladder.settings.policy_section import PolicySettings


class Fixed(msgspec.Struct, frozen=True, gc=False):
    """Reads the entropy only because every answer shows it (X-Entropy)."""

    tier: str
    version = 1
    features = ("entropy",)

    @property
    def name(self) -> str:
        return f"fixed:{self.tier}"

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        return decision(self, constraints.ladder.index(self.tier), f"policy {self.name}", score, constraints)


def fixed(settings: PolicySettings) -> Fixed:
    """Return the policy of the tier that the setting names."""
    return Fixed(settings.name.partition(":")[2])
