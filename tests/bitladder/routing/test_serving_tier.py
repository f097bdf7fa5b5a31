"""bitladder/routing/serving_tier.py: which tier would serve a job now."""

from __future__ import annotations

import pytest

from bitladder.routing.serving_tier import TierNow, serving_tier

LADDER = ("int4", "int8", "fp8")
IDLE, BUSY, DEAD = (
    TierNow(live=1, waiting=0, free=4),
    TierNow(live=1, waiting=9, free=0),
    TierNow(live=0, waiting=0, free=0),
)


@pytest.mark.parametrize(
    ("allowed", "tiers", "overflows", "expected"),
    [
        (LADDER, (IDLE, IDLE, IDLE), False, "int4"),
        (LADDER, (BUSY, IDLE, IDLE), False, "int4"),
        (LADDER, (BUSY, IDLE, IDLE), True, "int8"),
        (LADDER, (BUSY, BUSY, IDLE), True, "fp8"),
        (LADDER, (BUSY, BUSY, BUSY), True, "int4"),
        (("int4", "int8"), (BUSY, BUSY, IDLE), True, "int4"),
        (LADDER, (DEAD, BUSY, IDLE), False, "fp8"),
        (LADDER, (DEAD, BUSY, DEAD), False, "int8"),
        (("int4",), (DEAD, IDLE, IDLE), True, None),
        (("fp8",), (IDLE, IDLE, DEAD), False, None),
    ],
)
def test_the_tier_itself_serves_a_job_unless_it_overflows_or_is_dead(
    allowed: tuple[str, ...], tiers: tuple[TierNow, ...], overflows: bool, expected: str | None
) -> None:
    assert serving_tier(allowed, dict(zip(LADDER, tiers, strict=True)), overflows=overflows) == expected


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [((IDLE, IDLE, DEAD), "int8"), ((BUSY, DEAD, DEAD), "int4"), ((IDLE, IDLE, BUSY), "fp8"), ((DEAD,) * 3, None)],
)
def test_a_lower_tier_serves_with_consent_where_no_other_lives(
    tiers: tuple[TierNow, ...], expected: str | None
) -> None:
    now = dict(zip(LADDER, tiers, strict=True))

    assert serving_tier(("fp8",), now, overflows=False, below=("int4", "int8")) == expected


def test_a_tier_that_is_eager_serves_what_waits_below_without_an_overflow() -> None:
    busy = dict(zip(LADDER, (BUSY, IDLE, IDLE), strict=True))

    assert serving_tier(LADDER, busy, overflows=False, eager={"fp8"}) == "fp8"
    assert serving_tier(LADDER, busy | {"int4": IDLE}, overflows=True, eager={"fp8"}) == "int4"
