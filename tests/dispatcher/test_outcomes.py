"""dispatcher/queue/outcomes.py: every piece once and in order, whatever the messages do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dispatcher.contract import Outcome, Piece, State
from dispatcher.queue.commands import Finished
from dispatcher.queue.job_queue import JobQueue
from dispatcher.queue.outcomes import Inbox, Item, OutcomeInbox, StreamRestartedError, unpack_message
from dispatcher.sections import Settings
from tests.dispatcher.test_job_queue import claim, job, submit
from tests.dispatcher.test_job_queue import queue as queue  # the fixture


@pytest_asyncio.fixture
async def inbox(settings: Settings, queue: JobQueue) -> AsyncIterator[OutcomeInbox]:
    inbox = OutcomeInbox(settings.redis, queue)
    await inbox.start()
    assert await inbox.ready(5)
    yield inbox
    await inbox.stop()


def piece(fence: int, number: int) -> Piece:
    return Piece(fence=fence, number=number, data=b"%d.%d" % (fence, number))


async def read(inbox: OutcomeInbox, job_id: str, *messages: Item) -> list[bytes]:
    """Read what is told of a job when exactly these messages arrive."""
    with inbox.opened(job_id) as box:
        for message in messages:
            box.put(message)
        items = [item async for item in inbox.items(job_id, box, 5)]
    return [item.data for item in items if isinstance(item, Piece)]


async def test_pieces_that_no_message_told_of_are_read_from_the_stream(inbox: OutcomeInbox, queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    (claimed,) = await claim(queue, "int4")
    pieces = [piece(claimed.fence, number) for number in (1, 2, 3, 4)]
    await queue.emit("w-int4", [(mine.job_id, one) for one in pieces])
    over = Outcome(state=State.FINISHED, status=200, pieces=4)

    assert await read(inbox, mine.job_id, pieces[0], pieces[2], over) == [one.data for one in pieces]
    assert await read(inbox, mine.job_id, over) == [one.data for one in pieces]


async def test_a_piece_that_is_told_twice_is_read_once(inbox: OutcomeInbox) -> None:
    over = Outcome(state=State.FINISHED, status=200, pieces=2)

    assert await read(inbox, "x", piece(1, 1), piece(1, 1), piece(1, 2), over) == [b"1.1", b"1.2"]


async def test_an_answer_that_begins_anew_is_not_glued_to_its_first_half(inbox: OutcomeInbox) -> None:
    with pytest.raises(StreamRestartedError):
        await read(inbox, "x", piece(1, 1), piece(1, 2), piece(2, 1))


async def test_an_answer_that_begins_anew_before_anything_was_read_is_fine(inbox: OutcomeInbox) -> None:
    over = Outcome(state=State.FINISHED, status=200, pieces=1)

    assert await read(inbox, "x", piece(2, 1), over) == [b"2.1"]


async def test_an_outcome_is_awaited_from_any_process(inbox: OutcomeInbox, queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    claimed = (await claim(queue, "int4"))[0]
    done = Outcome(state=State.FINISHED, status=200)

    assert await inbox.wait(mine.job_id, 0.2) is None
    await queue.finish("w-int4", [Finished(job=claimed, outcome=done)])
    assert await inbox.wait(mine.job_id, 5) == done


async def test_an_outcome_that_was_there_before_anybody_waited_is_returned_at_once(
    inbox: OutcomeInbox, queue: JobQueue
) -> None:
    mine = job()
    await submit(queue, mine)
    claimed = (await claim(queue, "int4"))[0]
    done = Outcome(state=State.FINISHED, status=200)
    await queue.finish("w-int4", [Finished(job=claimed, outcome=done)])

    async with asyncio.timeout(2):  # well below the time after which a waiter looks again
        assert await inbox.wait(mine.job_id, 60) == done


async def test_an_inbox_gives_items_in_order_and_none_when_there_is_none_in_time() -> None:
    box = Inbox()
    box.put(piece(1, 1))
    box.put(piece(1, 2))

    first, second, none = await box.get(1), await box.get(1), await box.get(0.01)
    reading = asyncio.create_task(box.get(10))
    await asyncio.sleep(0)
    box.put(piece(1, 3))

    assert (first, second, none, await reading) == (piece(1, 1), piece(1, 2), None, piece(1, 3))


async def test_a_reader_that_was_cancelled_costs_the_next_one_nothing() -> None:
    box = Inbox()
    reading = asyncio.create_task(box.get(10))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])

    box.put(piece(1, 1))

    assert await box.get(1) == piece(1, 1)


def test_a_message_holds_many_items_and_any_bytes() -> None:
    message = b"t a 1 2 5\nx\ny\n d b 0 0 2\n{}t a 1 3 0\n"

    assert list(unpack_message(message)) == [
        (b"t", "a", 1, 2, b"x\ny\n "),
        (b"d", "b", 0, 0, b"{}"),
        (b"t", "a", 1, 3, b""),
    ]


async def test_outcomes_of_one_bundle_come_in_one_message(inbox: OutcomeInbox, queue: JobQueue) -> None:
    jobs = [job(reply_to=inbox.channel) for _ in range(5)]
    await submit(queue, *jobs)
    held = await claim(queue, "int4")
    boxes = [inbox.opened(one.job_id) for one in jobs]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(box) for box in boxes]

        done = [Outcome(state=State.FINISHED, status=200, text=one.job_id) for one in held]
        ends = [Finished(job=one, outcome=outcome) for one, outcome in zip(held, done, strict=True)]
        await queue.finish("w-int4", ends)

        assert [await box.get(5) for box in opened] == done
