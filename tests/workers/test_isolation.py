"""workers/isolation.py: which jobs may be in the engine together."""

from __future__ import annotations

import asyncio

import pytest

from workers.isolation import GROUP_SIZE, Isolation


async def entering(isolation: Isolation, *crash_counts: int) -> list[asyncio.Task[None]]:
    """Let jobs ask for admission, in order; those that may run are admitted."""
    tasks = [asyncio.create_task(isolation.enter(crash_count)) for crash_count in crash_counts]
    await steps()
    return tasks


async def steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def admitted(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() and not task.cancelled() for task in tasks)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_no_job_waits_where_none_is_isolated() -> None:
    isolation = Isolation()
    tasks = await entering(isolation, *[0] * 64)

    assert admitted(tasks) == 64
    assert not isolation.is_active


async def test_jobs_with_one_crash_run_in_groups() -> None:
    isolation = Isolation()
    tasks = await entering(isolation, *[1] * (GROUP_SIZE + 3))
    first = admitted(tasks)
    for _ in range(GROUP_SIZE):
        isolation.leave()
    await steps()

    assert first == GROUP_SIZE
    assert admitted(tasks) == GROUP_SIZE + 3
    await end(*tasks)


async def test_jobs_with_two_crashes_run_alone() -> None:
    isolation = Isolation()
    tasks = await entering(isolation, 2, 2, 2)

    seen = []
    for _ in range(3):
        seen.append(admitted(tasks))
        isolation.leave()
        await steps()

    assert seen == [1, 2, 3]
    assert not isolation.is_active


async def test_an_isolated_job_waits_until_the_engine_is_empty_and_others_wait_behind_it() -> None:
    isolation = Isolation()
    tasks = await entering(isolation, 0, 0, 2, 0)
    before = [task.done() for task in tasks]
    isolation.leave()
    isolation.leave()
    await steps()
    alone = [task.done() for task in tasks]
    isolation.leave()
    await steps()

    assert before == [True, True, False, False]
    assert alone == [True, True, True, False]
    assert admitted(tasks) == 4


async def test_a_job_that_is_cancelled_while_it_waits_keeps_no_other_out() -> None:
    isolation = Isolation()
    tasks = await entering(isolation, 2, 2, 0)
    await end(tasks[1])
    isolation.leave()
    await steps()

    assert tasks[2].done()
    assert not isolation.is_active


async def test_a_job_that_is_cancelled_as_it_is_admitted_leaves_again() -> None:
    isolation = Isolation()
    tasks = await entering(isolation, 2, 2, 2)
    isolation.leave()  # admits the second
    tasks[1].cancel()  # before it has run
    await asyncio.gather(tasks[1], return_exceptions=True)
    await steps()

    assert admitted(tasks) == 2
    with pytest.raises(asyncio.CancelledError):
        tasks[1].result()
    await end(tasks[2])
