"""bitladder/routing/constraints.py: which tiers an envelope allows, and which lane it means."""

from __future__ import annotations

import pytest

from bitladder.contract import Lane
from bitladder.errors import RequestError
from bitladder.routing.constraints import constraints_of, lane_of
from bitladder.routing.envelope import Envelope, read_envelope
from bitladder.settings.policy_section import LaneSettings

LADDER = ("int4", "int8", "fp8")


@pytest.mark.parametrize(
    ("envelope", "lowest", "highest", "ceiling"),
    [
        (Envelope(), 0, 2, None),
        (Envelope(min_tier="int8"), 1, 2, None),
        (Envelope(max_tier="int8"), 0, 1, "int8"),
        (Envelope(min_tier="fp8", max_tier="fp8"), 2, 2, None),
    ],
)
def test_bounds_are_places_on_the_ladder(envelope: Envelope, lowest: int, highest: int, ceiling: str | None) -> None:
    constraints = constraints_of(envelope, LADDER)

    assert (constraints.lowest, constraints.highest, constraints.ceiling) == (lowest, highest, ceiling)


@pytest.mark.parametrize("headers", [{"x-min-tier": "int2"}, {"x-min-tier": "fp8", "x-max-tier": "int4"}])
def test_tiers_that_cannot_be_are_refused_by_name(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="X-Min-Tier") as caught:
        constraints_of(read_envelope(headers), LADDER)

    assert caught.value.param == "X-Min-Tier"


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True),
        ({"x-min-tier": "int8", "x-max-tier": "int8"}, True),
        ({"x-min-tier": "int4"}, True),
        ({"x-min-tier": "fp8"}, False),
        ({"x-max-tier": "int4"}, False),
    ],
)
def test_a_model_s_name_may_choose_the_tier_that_the_headers_allow(headers: dict[str, str], is_allowed: bool) -> None:
    envelope = read_envelope(headers)
    if is_allowed:
        constraints = constraints_of(envelope, LADDER, "int8")
        assert (constraints.lowest, constraints.highest, constraints.ceiling) == (1, 1, "int8")
    else:
        with pytest.raises(RequestError, match=r"chooses the tier int8, but the headers allow .* only") as caught:
            constraints_of(envelope, LADDER, "int8")
        assert caught.value.param == "model"


def test_priority_chooses_the_lane_unless_one_is_asked_for() -> None:
    lanes = [lane_of(Envelope(priority=priority), LaneSettings()) for priority in (10, 8, 7, 3, 2, 1)]

    assert lanes == [Lane.URGENT, Lane.URGENT, Lane.NORMAL, Lane.NORMAL, Lane.BATCH, Lane.BATCH]
    assert lane_of(Envelope(priority=10, lane=Lane.BATCH), LaneSettings()) is Lane.BATCH
