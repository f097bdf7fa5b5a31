"""What holds for every policy: its features exist, and the settings take exactly the names that there are."""

from __future__ import annotations

import pytest

from bitladder.contract import Endpoint
from bitladder.errors import ConfigError
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.features import FEATURES, score_prompt
from bitladder.routing.policies import POLICIES, policy_of
from tests.conftest import make_settings

LADDER = ("int4", "int8", "fp8")
NAMES = {"article": "article", "fixed": "fixed:fp8"}


def test_every_policy_is_tried_here() -> None:
    assert set(NAMES) == set(POLICIES)


@pytest.mark.parametrize("name", NAMES.values())
def test_a_policy_reads_the_features_that_it_names_and_decides_the_same_each_time(name: str) -> None:
    policy = policy_of(make_settings("redis://127.0.0.1:1/0", policy__name=name).policy)
    score = score_prompt("Wie groß ist 3 + 4?".encode(), Endpoint.CHAT, policy.features)
    constraints = constraints_of(Envelope(), LADDER)

    decision = policy.decide(score, constraints)

    assert set(policy.features) <= set(FEATURES)
    assert set(score.values) == set(policy.features)
    assert decision == policy.decide(score, constraints)
    assert (decision.policy, decision.version, decision.score) == (policy.name, policy.version, score)
    assert decision.policy == name
    assert decision.floor in LADDER


@pytest.mark.parametrize("name", ["nonsense", "fixed", "article:int4", "fixed:int2", ""])
def test_a_name_that_no_policy_has_is_refused_by_the_settings(name: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.name"):
        make_settings("redis://127.0.0.1:1/0", policy__name=name)
