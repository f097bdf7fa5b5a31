"""workers/isolation.py: who may be in the engine together."""

from __future__ import annotations

import asyncio

import pytest

from workers.isolation import COMPANY, Ward


async def entered(ward: Ward, *suspicions: int) -> list[asyncio.Task[None]]:
    """Let jobs come to the endpoint, in order, and every one that may go in go in."""
    tasks = [asyncio.create_task(ward.enter(suspicion)) for suspicion in suspicions]
    await _turn()
    return tasks


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def inside(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() and not task.cancelled() for task in tasks)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nobody_waits_where_nobody_is_a_suspect() -> None:
    ward = Ward()
    tasks = await entered(ward, *[0] * 64)

    assert inside(tasks) == 64
    assert not ward.is_closed


async def test_suspects_of_the_first_degree_run_in_companies() -> None:
    ward = Ward()
    tasks = await entered(ward, *[1] * (COMPANY + 3))
    first = inside(tasks)
    for _ in range(COMPANY):
        ward.leave()
    await _turn()

    assert first == COMPANY
    assert inside(tasks) == COMPANY + 3
    await end(*tasks)


async def test_suspects_of_the_second_degree_run_alone() -> None:
    ward = Ward()
    tasks = await entered(ward, 2, 2, 2)

    seen = []
    for _ in range(3):
        seen.append(inside(tasks))
        ward.leave()
        await _turn()

    assert seen == [1, 2, 3]
    assert not ward.is_closed


async def test_a_suspect_waits_until_the_engine_is_empty_and_others_wait_behind_it() -> None:
    ward = Ward()
    tasks = await entered(ward, 0, 0, 2, 0)
    before = [task.done() for task in tasks]
    ward.leave()
    ward.leave()
    await _turn()
    alone = [task.done() for task in tasks]
    ward.leave()
    await _turn()

    assert before == [True, True, False, False]
    assert alone == [True, True, True, False]
    assert inside(tasks) == 4


async def test_one_that_is_cancelled_at_the_door_keeps_nobody_out() -> None:
    ward = Ward()
    tasks = await entered(ward, 2, 2, 0)
    await end(tasks[1])
    ward.leave()
    await _turn()

    assert tasks[2].done()
    assert not ward.is_closed


async def test_one_that_is_cancelled_as_it_is_let_in_leaves_again() -> None:
    ward = Ward()
    tasks = await entered(ward, 2, 2, 2)
    ward.leave()  # lets the second in
    tasks[1].cancel()  # before it has run
    await asyncio.gather(tasks[1], return_exceptions=True)
    await _turn()

    assert inside(tasks) == 2
    with pytest.raises(asyncio.CancelledError):
        tasks[1].result()
    await end(tasks[2])
