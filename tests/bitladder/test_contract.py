"""bitladder/contract.py: names of queues."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa import lua51

from bitladder.contract import Lane, QueueName

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
_PART = r"(max-|int4|normal|[A-Za-z0-9_])[A-Za-z0-9._+-]{0,9}"
MODELS = NAMES | st.from_regex(rf"@?{_PART}([/:@]{_PART}){{0,3}}", fullmatch=True)
QUEUES = st.builds(QueueName, MODELS, NAMES, st.sampled_from([lane.value for lane in Lane]), st.none() | NAMES)
LISTS = files("bitladder.queue") / "scripts" / "parts" / "lists.lua"


@given(QUEUES)
def test_a_queue_has_the_name_that_it_is_parsed_from(queue: QueueName) -> None:
    assert QueueName.parse(str(queue)) == queue


@given(QUEUES)
def test_lua_reads_of_a_queue_s_name_what_python_does(queue: QueueName) -> None:
    assert NAMES_IN(str(queue)) == (queue.model, f"{queue.model}:{queue.tier}")


def _names_in() -> Callable[[str], tuple[str, str]]:
    text = LISTS.read_text(encoding="utf-8")
    function = text[text.index("local function names_in") :].partition("\nend\n")[0]
    return cast("Callable[[str], tuple[str, str]]", lua51.LuaRuntime().execute(f"{function} end return names_in"))


NAMES_IN = _names_in()


@pytest.mark.parametrize("queue", ["a/B:8b:int4:normal", "a/B:8b:int4:normal:max-int8"])
def test_a_queue_s_name_begins_with_its_model_its_tier_and_its_lane_and_with_no_other_model(queue: str) -> None:
    starts = ["a/B:8b", "a/B:8b:int4", "a/B:8b:int4:normal", queue, "a/B", "a", "a/B:8", "a/B:8b:int8", ""]

    assert [QueueName.begins(queue, start) for start in starts] == [True] * 4 + [False] * 5
    assert QueueName.begins("theirs:x", "theirs")


def test_a_ceiling_stands_behind_the_lane() -> None:
    assert str(QueueName("m", "int4", Lane.NORMAL, "int8")) == "m:int4:normal:max-int8"
    assert str(QueueName("m", "int4", Lane.NORMAL)) == "m:int4:normal"


@pytest.mark.parametrize(
    "text",
    [
        *("", "default", "m:int4", "m:int4:high", ":int4:normal", "m::normal", "m:int4:normal:", "m:int4:normal:max-"),
        *("m:int4:normal:int8", "m:int4:normal:max-int8:", "m:int4:normal:max-int8:x", "x" * 100_000),
    ],
)
def test_other_names_are_refused_in_few_words(text: str) -> None:
    with pytest.raises(ValueError, match="a queue is named model:tier:lane or ") as caught:
        QueueName.parse(text)

    assert len(str(caught.value)) < 300
