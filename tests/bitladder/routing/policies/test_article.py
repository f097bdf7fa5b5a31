"""bitladder/routing/policies/article.py: the floor and its reason."""

from __future__ import annotations

import pytest

from bitladder.decision import Decision, Score
from bitladder.endpoints import Endpoint
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.features import score_prompt
from bitladder.routing.policies import policy_of
from bitladder.settings.policy_section import PolicySettings

LADDER = ("int4", "int8", "fp8")


@pytest.mark.parametrize(
    ("entropy", "envelope", "floor", "reason"),
    [
        (4.0, Envelope(), "int4", "entropy 4.00 <= 4.5"),
        (4.5, Envelope(), "int4", "entropy 4.50 <= 4.5"),
        (4.51, Envelope(), "int8", "entropy 4.51 > 4.5"),
        (4.0, Envelope(priority=8), "fp8", "priority 8 >= 8"),
        (4.0, Envelope(max_latency_ms=801), "fp8", "max latency 801 ms > 800 ms"),
        (4.0, Envelope(min_tier="int8"), "int8", "entropy 4.00 <= 4.5, raised to a minimum"),
        (4.0, Envelope(priority=9, max_tier="int4"), "int4", "priority 9 >= 8, held at a maximum"),
    ],
)
def test_the_article_s_rule_gives_floor_and_reason(entropy: float, envelope: Envelope, floor: str, reason: str) -> None:
    score = Score(entropy=entropy)

    decision = policy_of(PolicySettings()).decide(score, constraints_of(envelope, LADDER))

    assert decision == Decision(policy="article", version=1, floor=floor, reason=reason, score=score)
    assert decision.label == "article@1"


def test_the_thresholds_are_the_settings() -> None:
    policy = policy_of(PolicySettings(entropy_bits=3.9, top_priority=6, top_latency_ms=100))

    def floor(entropy: float, max_latency_ms: int = 100, priority: int = 5) -> str:
        envelope = Envelope(max_latency_ms=max_latency_ms, priority=priority)
        return policy.decide(Score(entropy=entropy), constraints_of(envelope, LADDER)).floor

    assert (floor(4.0), floor(3.9)) == ("int8", "int4")
    assert floor(1.0, max_latency_ms=101) == floor(1.0, priority=6) == "fp8"


def test_a_score_without_what_the_rule_reads_is_an_error_and_no_decision() -> None:
    score = score_prompt(b"Why?", Endpoint.CHAT, ("digits",))

    with pytest.raises(KeyError, match="entropy"):
        policy_of(PolicySettings()).decide(score, constraints_of(Envelope(), LADDER))
