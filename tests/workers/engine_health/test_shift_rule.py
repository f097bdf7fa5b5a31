"""scripts/health.lua: when a tier's traffic shifts and comes back, with the server's clock and keys in memory."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as given_few
from hypothesis import strategies as st
from lupa import lua51

from bitladder.queue.calls.tier_state import health_call, read_health
from bitladder.queue.claim_plan import claim_plan, lists_of, shifted_plan
from bitladder.queue.run_script import source
from bitladder.settings.sections import Settings
from tests.conftest import make_settings

SETTINGS = make_settings("redis://127.0.0.1:1/0")
HOLD_S = SETTINGS.queue.shift_hold_s


class Tier:
    """A tier's state, as the script itself keeps it; time passes as the test says."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.now_s, self.live, self.hash = 1000.0, 1, dict[str, str]()
        self._settings, self._lua = settings, lua51.LuaRuntime(unpack_returned_tuples=True)
        redis = self._lua.table_from({"call": self._call, "pcall": self._call})
        self._lua.globals().redis = redis
        text = "\n".join(line for line in source("health").splitlines() if not line.startswith("#!"))
        self._run: Any = self._lua.execute(f"return function(KEYS, ARGV)\n{text}\nend")

    def ends(self, sound: int, faults: int, after_s: float = 1) -> bool:
        """Report jobs of int4; return whether its traffic is shifted then."""
        self.now_s += after_s
        call = health_call(self._settings, "smollm2", "int4", sound=sound, faults=faults)
        answer = self._run(self._lua.table_from(call.keys), self._lua.table_from(map(str, call.args)))
        shifted, before, ratio, serving = answer.values()
        state = read_health(self._settings, "smollm2", "int4", [shifted, before, ratio, list(serving.values())])
        return state.is_shifted

    def _call(self, command: str, key: str = "", *words: Any) -> object:  # noqa: ANN401  (of Lua)
        if command == "TIME":
            return self._lua.table_from([int(self.now_s), int(self.now_s % 1 * 1e6)])
        if command == "HMGET":
            return self._lua.table_from([self.hash.get(name, False) for name in words])
        if command == "HSET":
            self.hash[words[0]] = words[1]
        return self.live if command == "ZCOUNT" else False if command == "HGET" else 1


@pytest.mark.parametrize(
    ("ends", "shifts"),
    [
        ([(100, 0)], False),
        ([(0, 19)], False),  # too few to say anything
        ([(0, 20)], True),
        ([(16, 4)], False),  # at the limit, not above it
        ([(15, 5)], True),
        ([(20, 0)] * 60 + [(10, 10)] * 3, False),  # a moment
        ([(20, 0)] * 60 + [(10, 10)] * 30, True),
        ([(0, 10)] + [(0, 0)] * 120 + [(15, 1)], False),  # long ago
    ],
)
def test_traffic_shifts_when_too_large_a_share_of_the_jobs_of_some_time_broke(
    ends: Sequence[tuple[int, int]], shifts: bool
) -> None:
    tier = Tier()

    assert any([tier.ends(*end) for end in ends]) is shifts


def test_traffic_does_not_shift_where_no_tier_above_serves_and_comes_back_when_none_does_any_more() -> None:
    tier = Tier()
    tier.live = 0
    assert not tier.ends(0, 100)
    tier.live = 1
    assert tier.ends(0, 100)
    tier.live = 0
    assert not tier.ends(0, 100)


def test_a_share_of_one_turns_it_off() -> None:
    assert not Tier(make_settings("redis://127.0.0.1:1/0", queue__shift_fault_ratio=1)).ends(0, 1000)


def test_traffic_comes_back_after_the_hold_when_ten_jobs_in_a_row_were_answered_well() -> None:
    tier = Tier()
    tier.ends(0, 100)
    assert tier.ends(9, 0, HOLD_S)
    assert tier.ends(9, 1)
    assert tier.ends(9, 0)
    assert not tier.ends(1, 0)
    assert not tier.ends(0, 1)  # what was before the shift is forgotten


def test_a_tier_that_shifts_again_soon_stays_away_twice_as_long() -> None:
    tier, held = Tier(), list[float]()
    for _ in range(8):
        assert tier.ends(0, 100)
        start_s = tier.now_s
        while tier.ends(20, 0):
            pass
        held.append(round(tier.now_s - start_s))

    assert held == [10, 20, 40, 80, 160, 300, 300, 300]


@given_few(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 50))
def test_traffic_does_not_flap_whatever_share_of_the_jobs_breaks(seed: int, share: float, rate: int) -> None:
    draw, tier, changes, was_shifted = random.Random(seed), Tier(), 0, False  # noqa: S311
    for _ in range(1200):
        faults = sum(draw.random() < share for _ in range(1 if was_shifted else rate))
        is_shifted = tier.ends((1 if was_shifted else rate) - faults, faults)
        changes += is_shifted != was_shifted
        was_shifted = is_shifted

    assert changes <= 16  # of a tier that is broken for twenty minutes: each hold is twice the one before
    if share <= 0.02:
        assert not was_shifted


@given(
    st.dictionaries(
        st.sampled_from(["sound", "faults", "at", "shifted", "back", "hold"]),
        st.sampled_from(["x", "nan", "-7", "1e308"]),
    )
)
def test_what_another_program_wrote_into_the_state_does_not_keep_traffic_away(odd: dict[str, str]) -> None:
    tier = Tier()
    tier.hash = odd
    for _ in range(15):
        is_shifted = tier.ends(20, 0)

    assert not is_shifted


@pytest.mark.parametrize("serving", [("int8", "fp8"), ("fp8",)])
def test_a_shifted_tier_keeps_exactly_the_lists_that_no_serving_tier_may_take(serving: tuple[str, ...]) -> None:
    ladder = SETTINGS.model("smollm2").ladder
    plan = json.loads(shifted_plan(claim_plan(SETTINGS, "smollm2", "int4"), "smollm2", ladder, serving).plan)
    whole = lists_of("smollm2", ladder, "int4", "normal", "int4")

    taken = {name for tier in serving for name in lists_of("smollm2", ladder, "int4", "normal", tier)}
    assert set(plan["own"][1]["lists"]) == set(whole) - taken
    assert plan["pass_to"] == f"bl:wake:smollm2:{serving[0]}"
