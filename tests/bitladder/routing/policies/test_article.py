"""bitladder/routing/policies/article.py: the floor and its reason."""

from __future__ import annotations

import pytest

from bitladder.contract import Envelope, Lane
from bitladder.errors import RequestError
from bitladder.routing.envelope import read_envelope
from bitladder.routing.policies.article import choose_route
from bitladder.settings.policy_section import LaneSettings, PolicySettings

LADDER = ("int4", "int8", "fp8")


@pytest.mark.parametrize(
    ("entropy", "envelope", "floor", "reason"),
    [
        (4.0, Envelope(), "int4", "entropy 4.00 <= 4.5"),
        (4.5, Envelope(), "int4", "entropy 4.50 <= 4.5"),
        (4.51, Envelope(), "int8", "entropy 4.51 > 4.5"),
        (4.0, Envelope(priority=8), "fp8", "priority 8 >= 8"),
        (4.0, Envelope(max_latency_ms=801), "fp8", "max latency 801 ms > 800 ms"),
        (4.0, Envelope(min_tier="int8"), "int8", "entropy 4.00 <= 4.5, raised by X-Min-Tier"),
        (4.0, Envelope(priority=9, max_tier="int4"), "int4", "priority 9 >= 8, held by X-Max-Tier"),
    ],
)
def test_the_article_s_rule_gives_floor_and_reason(entropy: float, envelope: Envelope, floor: str, reason: str) -> None:
    route = choose_route(entropy, envelope, LADDER, PolicySettings(), LaneSettings())

    assert (route.floor, route.reason) == (floor, reason)


def test_priority_chooses_the_lane() -> None:
    lanes = [
        choose_route(1.0, Envelope(priority=priority), LADDER, PolicySettings(), LaneSettings()).lane
        for priority in (10, 8, 7, 3, 2, 1)
    ]

    assert lanes == [Lane.URGENT, Lane.URGENT, Lane.NORMAL, Lane.NORMAL, Lane.BATCH, Lane.BATCH]


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-priority": "11"}, "X-Priority"),
        ({"x-priority": "five"}, "X-Priority"),
        ({"x-max-latency-ms": "0"}, "X-Max-Latency-Ms"),
        ({"x-deadline-ms": "-1"}, "X-Deadline-Ms"),
        ({"x-min-tier": "int2"}, "X-Min-Tier"),
        ({"x-min-tier": "fp8", "x-max-tier": "int4"}, "X-Min-Tier"),
    ],
)
def test_a_bad_header_is_refused_by_name(headers: dict[str, str], param: str) -> None:
    with pytest.raises(RequestError, match=param) as caught:
        choose_route(1.0, read_envelope(headers), LADDER, PolicySettings(), LaneSettings())

    assert caught.value.param == param
