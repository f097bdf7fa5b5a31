"""bitladder/contract.py: names of queues."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa import lua51

from bitladder.queue_name import Lane, QueueName

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
_PART = r"(max-|int4|normal|[A-Za-z0-9_])[A-Za-z0-9._+-]{0,9}"
MODELS = NAMES | st.from_regex(rf"@?{_PART}([/:@]{_PART}){{0,3}}", fullmatch=True)
LANES = st.sampled_from([lane.value for lane in Lane])
SETS = st.lists(NAMES, min_size=2, max_size=5, unique=True)
QUEUES = st.builds(QueueName, MODELS, NAMES, LANES, st.none() | NAMES) | st.builds(
    lambda model, only, lane: QueueName(model, only[0], lane, None, tuple(only)), MODELS, SETS, LANES
)
LADDER = ("int4", "int8", "fp8", "bf16")
TENANTS = files("bitladder.queue") / "scripts" / "parts" / "tenants.lua"


@given(QUEUES)
def test_a_queue_has_the_name_that_it_is_parsed_from(queue: QueueName) -> None:
    assert QueueName.parse(str(queue)) == queue


@given(QUEUES)
def test_lua_reads_of_a_queue_s_name_what_python_does(queue: QueueName) -> None:
    tier = f"{queue.model}:{queue.tier}"
    assert NAMES_IN(str(queue)) == (queue.model, tier, f"{tier}:{queue.lane}")


def _names_in() -> Callable[[str], tuple[str, str, str]]:
    text = TENANTS.read_text(encoding="utf-8")
    function = text[text.index("local function plain_name") : text.index("local function tenants_key")]
    return cast("Callable[[str], tuple[str, str, str]]", lua51.LuaRuntime().execute(f"{function} return names_in"))


NAMES_IN = _names_in()


@pytest.mark.parametrize("queue", ["a/B:8b:int4:normal", "a/B:8b:int4:normal:max-int8"])
def test_a_queue_s_name_begins_with_its_model_its_tier_and_its_lane_and_with_no_other_model(queue: str) -> None:
    starts = ["a/B:8b", "a/B:8b:int4", "a/B:8b:int4:normal", queue, "a/B", "a", "a/B:8", "a/B:8b:int8", ""]

    assert [QueueName.begins(queue, start) for start in starts] == [True] * 4 + [False] * 5
    assert QueueName.begins("theirs:x", "theirs")


def test_a_ceiling_stands_behind_the_lane() -> None:
    assert str(QueueName("m", "int4", Lane.NORMAL, "int8")) == "m:int4:normal:max-int8"
    assert str(QueueName("m", "int4", Lane.NORMAL)) == "m:int4:normal"


@given(st.sets(st.sampled_from(LADDER), min_size=1), st.data())
def test_a_set_of_tiers_has_one_name_which_says_who_may_serve(serving: set[str], data: st.DataObject) -> None:
    in_order = tuple(tier for tier in LADDER if tier in serving)
    queue = QueueName.of("m", data.draw(st.sampled_from(in_order)), "normal", in_order, LADDER)

    assert QueueName.parse(str(queue)) == queue
    assert queue.serving(LADDER) == in_order
    assert bool(queue.only) == ("only-" in str(queue))


@pytest.mark.parametrize(
    ("tier", "serving", "name"),
    [
        ("int4", ("int4", "int8", "fp8", "bf16"), "m:int4:normal"),
        ("int4", ("int4", "int8"), "m:int4:normal:max-int8"),
        ("int4", ("int4", "fp8"), "m:int4:normal:only-int4,fp8"),
        ("int8", ("int4", "int8", "fp8"), "m:int8:normal:only-int4,int8,fp8"),  # int4 below its floor, by consent
    ],
)
def test_only_a_set_that_is_no_range_from_the_tier_on_is_spelled_out(
    tier: str, serving: tuple[str, ...], name: str
) -> None:
    assert str(QueueName.of("m", tier, "normal", serving, LADDER)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("m:int4:normal:only-", "m:int4:normal:only-fp8", "m:int4:normal:only-int4,fp8:x"),
        *("", "default", "m:int4", "m:int4:high", ":int4:normal", "m::normal", "m:int4:normal:", "m:int4:normal:max-"),
        *("m:int4:normal:int8", "m:int4:normal:max-int8:", "m:int4:normal:max-int8:x", "x" * 100_000),
    ],
)
def test_other_names_are_refused_in_few_words(text: str) -> None:
    with pytest.raises(ValueError, match="a queue is named model:tier:lane, and ") as caught:
        QueueName.parse(text)

    assert len(str(caught.value)) < 300
