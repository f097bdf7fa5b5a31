"""bitladder/routing/policies/fixed.py: one tier, within the constraints."""

from __future__ import annotations

import pytest

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies import policy_of
from bitladder.settings.policy_section import PolicySettings

LADDER = ("int4", "int8", "fp8")


@pytest.mark.parametrize(
    ("envelope", "floor", "reason"),
    [
        (Envelope(priority=10), "int8", "policy fixed:int8"),
        (Envelope(min_tier="fp8"), "fp8", "policy fixed:int8, raised to a minimum"),
        (Envelope(max_tier="int4"), "int4", "policy fixed:int8, held at a maximum"),
    ],
)
def test_a_fixed_policy_chooses_its_tier_whatever_the_score(envelope: Envelope, floor: str, reason: str) -> None:
    policy = policy_of(PolicySettings(name="fixed:int8"))

    for score in (Score(entropy=0.0), Score(entropy=8.0)):
        decision = policy.decide(score, constraints_of(envelope, LADDER))
        assert decision == Decision(policy="fixed:int8", version=1, floor=floor, reason=reason, score=score)
        assert decision.label == "fixed:int8@1"
