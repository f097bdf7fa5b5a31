"""bitladder/queue/sending/budget.py, and bundles that are answered in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from bitladder.errors import QueueUnreachableError
from bitladder.process.batching import Batcher
from bitladder.queue.sending.budget import MAX_BYTES, MIN_BYTES, ByteBudget, bundled


def test_a_call_that_is_not_answered_halves_the_next_one_and_answers_let_it_grow_again() -> None:
    budget = ByteBudget()
    with pytest.raises(QueueUnreachableError), budget.tried():
        raise QueueUnreachableError("no answer")
    halved = budget.bytes
    with budget.tried():
        pass
    grown = budget.bytes
    for _ in range(100):
        budget.learn(is_answered=True)

    assert halved == MAX_BYTES / 2
    assert halved < grown < MAX_BYTES
    assert budget.bytes == MAX_BYTES


def test_a_call_shrinks_to_a_bound_from_which_it_comes_back() -> None:
    budget = ByteBudget()
    for _ in range(1000):  # an outage of minutes
        budget.learn(is_answered=False)
    least, calls = budget.bytes, 0
    while budget.bytes < MAX_BYTES:
        budget.learn(is_answered=True)
        calls += 1

    assert least == MIN_BYTES
    assert calls < 50


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [([], 0), ([1] * 9, 9), ([2 * MAX_BYTES, 1], 1), ([1, 2 * MAX_BYTES], 1), ([MAX_BYTES - 1, 1, 1], 2)],
)
def test_as_many_of_the_first_items_go_as_fit_and_one_whatever_its_size(sizes: list[int], taken: int) -> None:
    assert list(ByteBudget().first(sizes, int)) == sizes[:taken]


def test_bundles_keep_the_order_and_both_bounds_and_take_no_more_than_what_did_not_fit() -> None:
    taken = []

    def source() -> Iterator[int]:
        for size in (3, 3, 3, 30, 1, 1, 1, 1):
            taken.append(size)
            yield size

    seen = [(bundle, len(taken)) for bundle in bundled(source(), 3, int, 8)]

    assert seen == [([3, 3], 3), ([3], 4), ([30], 5), ([1, 1, 1], 7), ([1], 8)]
    assert list(bundled([], 3, int, 8)) == []


async def test_what_a_bundle_leaves_unanswered_is_in_the_next_one_before_what_came_later() -> None:
    seen: list[list[str]] = []

    async def flush(items: Sequence[str]) -> list[str]:
        await asyncio.sleep(0)  # others call meanwhile
        seen.append(list(items))
        return [item.upper() for item in items[:2]]

    batcher: Batcher[str, str] = Batcher(flush, max_items=3)

    assert await asyncio.wait_for(asyncio.gather(*map(batcher.call, "abcde")), 5) == list("ABCDE")
    assert seen == [["a", "b", "c"], ["c", "d", "e"], ["e"]]
