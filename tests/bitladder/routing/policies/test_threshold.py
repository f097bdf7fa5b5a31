"""bitladder/routing/policies/threshold.py: the first rule that holds chooses, and the reason says by which values."""

from __future__ import annotations

import pytest

from bitladder.decision import Score
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies import policy_of
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings

LADDER = ("int4", "int8", "fp8")
TABLE = NamedPolicySettings(
    kind="threshold",
    version=3,
    rules=(
        {"when": ["deadline_ms < 2000"], "floor": "int4"},
        {"when": ["tokens > 100", "chat >= 1"], "floor": "fp8"},
        {"when": ["entropy <= 3"], "floor": "int8"},
    ),
    otherwise="int4",
)


@pytest.mark.parametrize(
    ("score", "deadline_ms", "floor", "reason"),
    [
        (Score(tokens=900, chat=1, entropy=2), 1999, "int4", "deadline 1999 ms < 2000 ms"),
        (Score(tokens=900, chat=1, entropy=2), 2000, "fp8", "tokens 900 > 100 and chat 1 >= 1"),
        (Score(tokens=100.5, chat=1, entropy=2), None, "fp8", "tokens 100.5 > 100 and chat 1 >= 1"),
        (Score(tokens=100, chat=1, entropy=3), None, "int8", "entropy 3.00 <= 3"),
        (Score(tokens=900, chat=0, entropy=3.1), None, "int4", "no rule holds"),
    ],
)
def test_the_first_rule_that_holds_chooses(score: Score, deadline_ms: int | None, floor: str, reason: str) -> None:
    policy = policy_of(PolicySettings(name="mine"), {"mine": TABLE})

    decision = policy.decide(score, constraints_of(Envelope(deadline_ms=deadline_ms), LADDER))

    assert (decision.floor, decision.reason) == (floor, reason)
    assert policy.features == ("tokens", "chat", "entropy")


def test_another_content_has_another_name_whatever_its_version() -> None:
    other = TABLE.model_copy(update={"otherwise": "fp8"})
    names = {policy_of(PolicySettings(name="mine"), {"mine": table}).name for table in (TABLE, other, TABLE)}

    assert len(names) == 2
    assert all(name.startswith("mine:") and len(name) == 13 for name in names)
