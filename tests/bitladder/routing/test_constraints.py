"""bitladder/routing/constraints.py: which tiers an envelope allows, and which lane it means."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.constraints import constraints_of, lane_of
from bitladder.routing.envelope import Envelope, read_envelope
from bitladder.routing.max_cost import within_cost
from bitladder.settings.access import KeyEnvelope, KeyRules
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
        with pytest.raises(RequestError, match=r"the tier in the model's name \(int8\)") as caught:
            constraints_of(envelope, LADDER, "int8")
        assert caught.value.param == "model"


def test_priority_chooses_the_lane_unless_one_is_asked_for() -> None:
    lanes = [lane_of(Envelope(priority=priority), LaneSettings()) for priority in (10, 8, 7, 3, 2, 1)]

    assert lanes == [Lane.URGENT, Lane.URGENT, Lane.NORMAL, Lane.NORMAL, Lane.BATCH, Lane.BATCH]
    assert lane_of(Envelope(priority=10, lane=Lane.BATCH), LaneSettings()) is Lane.BATCH


def key(**tables: KeyEnvelope) -> KeyRules:
    return KeyRules("app", **tables)


@pytest.mark.parametrize(
    ("envelope", "floor", "queue"),
    [
        (Envelope(quantizations=("int4", "fp8", "bf16")), "int4", "m:int4:normal:only-int4,fp8"),
        (Envelope(quantizations=("int4", "fp8")), "fp8", "m:fp8:normal"),
        (Envelope(quantizations=("int4", "int8")), "int4", "m:int4:normal:max-int8"),
        (Envelope(below_floor=True), "int4", "m:int4:normal"),  # nothing is below it
        (Envelope(below_floor=True), "fp8", "m:fp8:normal:only-int4,int8,fp8"),
        (Envelope(below_floor=True, max_tier="int8"), "int8", "m:int8:normal:only-int4,int8"),
        (Envelope(below_floor=True, min_tier="int8"), "int8", "m:int8:normal:only-int4,int8,fp8"),
        (Envelope(below_floor=True, quantizations=("int4", "fp8")), "fp8", "m:fp8:normal:only-int4,fp8"),
        (Envelope(key=key(defaults=KeyEnvelope(allow_below_floor=True))), "fp8", "m:fp8:normal:only-int4,int8,fp8"),
        (Envelope(below_floor=False, key=key(defaults=KeyEnvelope(allow_below_floor=True))), "fp8", "m:fp8:normal"),
        (Envelope(below_floor=True, key=key(limits=KeyEnvelope(floor="int8"))), "fp8", "m:fp8:normal:only-int8,fp8"),
    ],
)
def test_a_queue_is_named_after_the_tiers_that_may_serve(envelope: Envelope, floor: str, queue: str) -> None:
    assert str(constraints_of(envelope, LADDER).queue("m", floor, Lane.NORMAL)) == queue


@pytest.mark.parametrize(
    ("envelope", "chosen", "message"),
    [
        (
            Envelope(min_tier="fp8", quantizations=("int4",)),
            None,
            r"X-Min-Tier \(fp8\) and provider.quantizations \(int4\)",
        ),
        (Envelope(max_tier="int4", quantizations=("fp8",)), None, r"X-Max-Tier \(int4\) and provider.quant.* \(fp8\)"),
        (Envelope(quantizations=("fp8",)), "int4", r"provider.quantizations \(fp8\) and the tier in the model's name"),
        (
            Envelope(min_tier="int8", max_tier="int8", quantizations=("int4", "fp8")),
            None,
            r"X-Max-Tier \(int8\) and X-Min-Tier \(int8\) and provider.quantizations \(int4, fp8\) contradict",
        ),
        (
            Envelope(max_tier="int4", key=key(limits=KeyEnvelope(floor="int8"))),
            None,
            r"limits.floor of the API key app \(int8\) and X-Max-Tier \(int4\) contradict each other",
        ),
        (
            Envelope(below_floor=True, key=key(limits=KeyEnvelope(allow_below_floor=False))),
            None,
            r"X-Allow-Below-Floor \(true\) and limits.allow_below_floor of the API key app \(false\)",
        ),
        (Envelope(below_floor=True), "int4", r"X-Allow-Below-Floor \(true\) and the tier in the model's name \(int4\)"),
        (
            Envelope(key=key(limits=KeyEnvelope(floor="q8"))),
            None,
            r"limits.floor of the API key app \(q8\) must be one",
        ),
    ],
)
def test_contradictions_name_what_contradicts_and_both_values(
    envelope: Envelope, chosen: str | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        constraints_of(envelope, LADDER, chosen)


NAMED = st.none() | st.sampled_from(LADDER)
SETS = st.none() | st.sets(st.sampled_from(LADDER), min_size=1).map(tuple)
KEYS = st.builds(KeyEnvelope, floor=NAMED, ceiling=NAMED, allow_below_floor=st.none() | st.booleans())


@given(
    st.builds(
        Envelope,
        min_tier=NAMED,
        max_tier=NAMED,
        quantizations=SETS,
        below_floor=st.none() | st.booleans(),
        key=st.builds(KeyRules, st.just("app"), KEYS, KEYS),
    ),
    st.integers(0, 2),
)
def test_whatever_is_asked_a_limit_holds_and_nothing_goes_below_the_floor_without_consent(
    envelope: Envelope, wanted: int
) -> None:
    limits, defaults = envelope.key.limits, envelope.key.defaults
    try:
        constraints = constraints_of(envelope, LADDER)
    except RequestError as error:
        assert "contradict each other" in str(error)  # noqa: PT017
        return
    floor = constraints.nearest(wanted)
    serving = [LADDER.index(tier) for tier in constraints.queue("m", LADDER[floor], Lane.NORMAL).serving(LADDER)]

    assert floor in serving
    assert LADDER.index(limits.floor or "int4") <= min(serving)
    assert max(serving) <= LADDER.index(limits.ceiling or "fp8")
    assert max(serving) <= LADDER.index(envelope.max_tier or "fp8")
    assert floor >= LADDER.index(envelope.min_tier or "int4")
    assert {LADDER[rank] for rank in serving} <= set(envelope.quantizations or LADDER)
    consents = defaults.allow_below_floor if envelope.below_floor is None else envelope.below_floor
    assert min(serving) == floor or (consents and limits.allow_below_floor is not False)


def test_no_request_goes_to_a_more_urgent_lane_than_its_key_may_use() -> None:
    limited = key(limits=KeyEnvelope(lane=Lane.NORMAL))
    lanes = [lane_of(Envelope(priority=priority, key=limited), LaneSettings()) for priority in (10, 5, 1)]

    assert lanes == [Lane.NORMAL, Lane.NORMAL, Lane.BATCH]
    assert lane_of(Envelope(lane=Lane.URGENT, key=limited), LaneSettings()) is Lane.NORMAL


def test_a_cost_limit_leaves_of_a_set_and_of_a_consent_what_is_cheap_enough() -> None:
    costs = {"int4": 1.0, "int8": 2.0, "fp8": 3.0}
    gap = constraints_of(Envelope(quantizations=("int4", "fp8"), max_cost=2.5), LADDER)
    dear = constraints_of(Envelope(quantizations=("fp8",), max_cost=2.5), LADDER)
    below = constraints_of(Envelope(min_tier="int8", below_floor=True, max_cost=2.5), LADDER)

    assert str(within_cost(gap, costs).queue("m", "int4", Lane.NORMAL)) == "m:int4:normal:max-int4"
    with pytest.raises(RequestError, match="X-Max-Cost"):
        within_cost(dear, costs)
    with pytest.raises(RequestError, match="not measured at int8"):
        within_cost(constraints_of(Envelope(max_cost=2.5), LADDER), {"int4": 9.0, "int8": None, "fp8": None})
    assert str(within_cost(below, costs).queue("m", "int8", Lane.NORMAL)) == "m:int8:normal:only-int4,int8"
    assert within_cost(below, costs | {"int4": 9.0}).queue("m", "int8", Lane.NORMAL).serving(LADDER) == ("int8",)


def test_a_cost_limit_passes_over_a_dear_tier_that_a_set_leaves_out() -> None:
    ladder = ("int4", "int8", "fp8", "bf16")
    costs = {"int4": 9.0, "int8": 1.0, "fp8": 9.0, "bf16": 2.0}
    ends = constraints_of(Envelope(quantizations=("int4", "bf16"), max_cost=2.5), ladder)

    assert within_cost(ends, costs).queue("m", "bf16", Lane.NORMAL).serving(ladder) == ("bf16",)
    with pytest.raises(RequestError, match=r"expected to cost 9\.0+ at int4, 2\.0+ at bf16: allow more"):
        within_cost(constraints_of(Envelope(quantizations=("int4", "bf16"), max_cost=0.5), ladder), costs)


def test_who_says_nothing_of_tiers_is_allowed_what_the_whole_ladder_allows() -> None:
    silent, whole = constraints_of(Envelope(), LADDER), constraints_of(Envelope(min_tier=LADDER[0]), LADDER)

    assert silent == msgspec.structs.replace(whole, envelope=Envelope())
    assert constraints_of(Envelope(key=key(limits=KeyEnvelope(floor="int8"))), LADDER).lowest == 1
    assert constraints_of(Envelope(key=key(defaults=KeyEnvelope(ceiling="int8"))), LADDER).highest == 1
