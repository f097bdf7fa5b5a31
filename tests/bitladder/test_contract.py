"""bitladder/contract.py: names of queues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.contract import Lane, QueueName

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(st.builds(QueueName, NAMES, NAMES, st.sampled_from([lane.value for lane in Lane]), st.none() | NAMES))
def test_a_queue_has_the_name_that_it_is_parsed_from(queue: QueueName) -> None:
    assert QueueName.parse(str(queue)) == queue


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
