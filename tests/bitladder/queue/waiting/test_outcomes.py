"""bitladder/queue/waiting/outcomes.py: every chunk once and in order, whatever the messages do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis

from bitladder.contract import Chunk, Claimed, Outcome, State
from bitladder.process.supervision import Background
from bitladder.queue.calls.end import Finished
from bitladder.queue.calls.streams import MAX_READ
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.job_record import LOST, Ended, Item, Running
from bitladder.queue.waiting import inbox as inboxes
from bitladder.queue.waiting import outcomes
from bitladder.queue.waiting.inbox import MAX_UNREAD, Inbox
from bitladder.queue.waiting.outcomes import OutcomeInbox, unpack_message
from bitladder.queue.waiting.reading import StreamGapError, StreamRestartedError
from bitladder.settings.sections import Settings
from tests.bitladder.queue.test_job_queue import claim, job, submit
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture
from workers.lease import LeaseKeeper


@pytest_asyncio.fixture
async def inbox(settings: Settings, queue: JobQueue) -> AsyncIterator[OutcomeInbox]:
    inbox, background = OutcomeInbox(settings.redis, queue), Background()
    inbox.start(background)
    assert await inbox.ready(5)
    yield inbox
    await background.stop()
    await inbox.aclose()


def chunk(fence: int, number: int) -> Chunk:
    return Chunk(fence=fence, number=number, data=b"%d.%d" % (fence, number))


def over(fence: int, chunks: int) -> Outcome:
    return Outcome(state=State.FINISHED, status=200, chunks=chunks, fence=fence)


async def streaming(queue: JobQueue, *numbers: int) -> Claimed:
    """Return a job that runs, and of which these chunks are stored."""
    mine = job()
    await submit(queue, mine)
    (claimed,) = await claim(queue, "int4")
    await queue.emit("w-int4", [(mine.job_id, chunk(claimed.fence, number)) for number in numbers])
    return claimed


async def reap(queue: JobQueue) -> None:
    keeper = LeaseKeeper(queue.settings, "smollm2", "int4", "reaper", held=dict, drop=lambda lost, cancelled: None)
    await asyncio.to_thread(keeper.reap)
    keeper._client.close()


async def read(inbox: OutcomeInbox, job_id: str, *messages: Item) -> list[bytes]:
    """Read what is told of a job when exactly these messages arrive."""
    with inbox.opened(job_id, is_stream=True) as box:
        for message in messages:
            box.put(message)
        items = [item async for item in inbox.items(job_id, box, 5)]
    return [item.data for item in items if isinstance(item, Chunk)]


async def test_chunks_that_no_message_told_of_are_read_from_the_stream(inbox: OutcomeInbox, queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    (claimed,) = await claim(queue, "int4")
    chunks = [chunk(claimed.fence, number) for number in (1, 2, 3, 4)]
    await queue.emit("w-int4", [(mine.job_id, chunk) for chunk in chunks])
    end = over(claimed.fence, 4)

    assert await read(inbox, mine.job_id, chunks[0], chunks[2], end) == [chunk.data for chunk in chunks]
    assert await read(inbox, mine.job_id, end) == [chunk.data for chunk in chunks]


async def test_a_chunk_that_is_told_twice_is_read_once(inbox: OutcomeInbox) -> None:
    assert await read(inbox, "x", chunk(1, 1), chunk(1, 1), chunk(1, 2), over(1, 2)) == [b"1.1", b"1.2"]


async def test_an_answer_that_begins_anew_is_not_glued_to_its_first_half(inbox: OutcomeInbox) -> None:
    with pytest.raises(StreamRestartedError):
        await read(inbox, "x", chunk(1, 1), chunk(1, 2), chunk(2, 1))


async def test_an_answer_that_begins_anew_before_anything_was_read_is_fine(inbox: OutcomeInbox) -> None:
    by_an_older_worker = Outcome(state=State.FINISHED, status=200, chunks=1)  # which says no fence

    assert await read(inbox, "x", chunk(2, 1), over(2, 1)) == [b"2.1"]
    assert await read(inbox, "x", chunk(2, 1), by_an_older_worker) == [b"2.1"]


async def test_a_gap_that_nothing_can_fill_is_told(inbox: OutcomeInbox, queue: JobQueue) -> None:
    mine = await streaming(queue, 1, 2, 4)

    with pytest.raises(StreamGapError, match="chunks 3 to 3"):
        await read(inbox, mine.job_id, chunk(mine.fence, 1), chunk(mine.fence, 2), chunk(mine.fence, 4))
    with pytest.raises(StreamGapError, match="chunks 3 to 3"):
        await read(inbox, mine.job_id, over(mine.fence, 4))


async def test_an_answer_whose_last_chunks_are_missing_does_not_end_as_if_it_were_whole(
    inbox: OutcomeInbox, queue: JobQueue
) -> None:
    mine = await streaming(queue, 1, 2)

    with pytest.raises(StreamGapError, match="chunks 3 to 4"):
        await read(inbox, mine.job_id, chunk(mine.fence, 1), over(mine.fence, 4))


async def test_the_end_of_another_execution_does_not_end_what_was_read_of_the_first(inbox: OutcomeInbox) -> None:
    with pytest.raises(StreamRestartedError):
        await read(inbox, "x", chunk(1, 1), chunk(1, 2), chunk(1, 3), over(2, 2))


async def test_what_is_left_of_a_lost_execution_is_not_read_as_the_one_that_finished(
    inbox: OutcomeInbox, queue: JobQueue, store: redis.Redis
) -> None:
    mine = await streaming(queue, 1, 2, 3)
    store.zadd("bl:workers", {"w-int4": 1})
    await reap(queue)
    (again,) = await claim(queue, "int4", worker="other")

    await queue.emit("other", [(mine.job_id, chunk(again.fence, 1))])

    assert await read(inbox, mine.job_id, over(again.fence, 1)) == [chunk(again.fence, 1).data]
    assert await queue.chunks(mine.job_id, 0, 0) == [chunk(again.fence, 1)]


async def test_a_stream_whose_worker_was_only_late_is_read_whole(
    inbox: OutcomeInbox, queue: JobQueue, store: redis.Redis
) -> None:
    """The lease ran out after the last token and before the outcome, and nobody else had started the job."""
    mine = await streaming(queue, 1, 2, 3)
    store.zadd("bl:workers", {"w-int4": 1})
    await reap(queue)

    accepted = await queue.finish("w-int4", [Finished(job=mine, outcome=over(mine.fence, 3))])
    found = [item async for item in inbox.follow(mine.job_id, 5)]

    assert accepted == [True]
    assert found == [chunk(mine.fence, 1), chunk(mine.fence, 2), chunk(mine.fence, 3), over(mine.fence, 3)]


async def test_a_follower_reads_what_is_stored_and_then_what_comes(inbox: OutcomeInbox, queue: JobQueue) -> None:
    mine = await streaming(queue, 1, 2, 3)
    items = inbox.follow(mine.job_id, 20, (mine.fence, 1))
    first = [await anext(items), await anext(items)]

    reading = asyncio.create_task(anext(items))
    await asyncio.sleep(0)
    await queue.emit("w-int4", [(mine.job_id, chunk(mine.fence, 4))])
    async with asyncio.timeout(1.5):  # told, not found at the next look
        third = await reading
    await queue.finish("w-int4", [Finished(job=mine, outcome=over(mine.fence, 4))])
    rest = [item async for item in items]

    assert [*first, third, *rest] == [
        chunk(mine.fence, 2),
        chunk(mine.fence, 3),
        chunk(mine.fence, 4),
        over(mine.fence, 4),
    ]


async def test_a_reader_that_is_slow_is_kept_little_for_and_misses_nothing(
    inbox: OutcomeInbox, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inboxes, "MAX_UNREAD", 600)
    mine = await streaming(queue, *range(1, 1202))

    found = await read(
        inbox, mine.job_id, *(chunk(mine.fence, number) for number in range(1, 1202)), over(mine.fence, 1201)
    )

    assert found == [chunk(mine.fence, number).data for number in range(1, 1202)]


async def test_a_stream_goes_on_where_no_message_arrives(
    inbox: OutcomeInbox, queue: JobQueue, store: redis.Redis
) -> None:
    mine = await streaming(queue, 1)
    items = inbox.follow(mine.job_id, 30)
    first = await anext(items)
    store.hdel(f"rq:job:{mine.job_id}", "reply")  # nobody is told any more

    await queue.emit("w-int4", [(mine.job_id, chunk(mine.fence, 2))])
    async with asyncio.timeout(outcomes.POLL_INTERVAL_S * 2 + 1):
        second = await anext(items)
    await queue.finish("w-int4", [Finished(job=mine, outcome=over(mine.fence, 2))])
    async with asyncio.timeout(outcomes.POLL_INTERVAL_S * 2 + 1):
        last = await anext(items)

    assert [first, second, last] == [chunk(mine.fence, 1), chunk(mine.fence, 2), over(mine.fence, 2)]


async def test_a_job_on_its_way_is_not_taken_for_one_that_is_gone(inbox: OutcomeInbox) -> None:
    with inbox.opened("on-its-way", is_stream=False) as box:
        await asyncio.sleep(outcomes.POLL_INTERVAL_S * 2)  # its submission has not been answered yet
        early = await box.get(0)

        late = await inbox.outcome("on-its-way", box, outcomes.POLL_INTERVAL_S * 2)

    assert early is None
    assert late == LOST


async def test_many_processes_may_wait_for_one_job_and_the_latest_are_told(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    await submit(queue, mine)

    for number in range(20):
        assert await queue.look([mine.job_id], channel=f"bl:reply:{number % 19}") == [None]

    named: Any = store.hget(f"rq:job:{mine.job_id}", "reply")
    assert named.decode().split() == [f"bl:reply:{number}" for number in range(4, 19)] + ["bl:reply:0"]


async def test_jobs_are_looked_up_by_what_became_of_them(queue: JobQueue, store: redis.Redis) -> None:
    waits, runs, ended, taken, stopped = (job() for _ in range(5))
    await submit(queue, runs, ended)
    held = await claim(queue, "int4")
    done = Outcome(state=State.FINISHED, status=200)
    await queue.finish("w-int4", [Finished(job=job, outcome=done) for job in held if job.job_id == ended.job_id])
    await submit(queue, waits, taken, stopped)
    store.hset(f"rq:job:{taken.job_id}", "status", "failed")
    store.hset(f"rq:job:{stopped.job_id}", "status", "stopped")
    store.set("rq:job:planted", "no hash")

    ids = [job.job_id for job in (waits, runs, ended, taken, stopped)]
    found = await queue.look([*ids, "planted", "gone"])

    assert found[:3] == [None, Running(fence=next(job.fence for job in held if job.job_id == runs.job_id)), done]
    assert [(end.state, end.code) for end in found[3:] if isinstance(end, Outcome)] == [
        ("failed", "ended_elsewhere"),
        ("cancelled", "cancelled"),
        ("failed", "job_lost"),
        ("failed", "job_lost"),
    ]


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_whoever_awaits_a_job_hears_within_seconds_that_its_status_is_none(
    inbox: OutcomeInbox, queue: JobQueue, store: redis.Redis, is_claimed: bool
) -> None:
    mine = job()
    await submit(queue, mine)
    if is_claimed:
        await claim(queue, "int4")
    waiting = [asyncio.create_task(inbox.wait(mine.job_id, 60)), asyncio.create_task(last_of(inbox, mine.job_id))]
    await wait_for(lambda: b"bl:reply:" in (store.hget(f"rq:job:{mine.job_id}", "reply") or b""))
    store.hset(f"rq:job:{mine.job_id}", "status", "paused\r\n" + "x" * 10_000)

    async with asyncio.timeout(10):
        ends = await asyncio.gather(*waiting)
    view = await queue.view(mine.job_id)

    assert view is not None
    for end in (*ends, view.outcome):
        assert isinstance(end, Outcome)
        assert (end.state, end.status, end.code) == (State.FAILED, 500, "corrupt_job")
        assert "'paused\\r\\n" in (end.error or "")
        assert len(end.error or "") < 500


async def last_of(inbox: OutcomeInbox, job_id: str) -> Item:
    """Read a stream to its end."""
    return [item async for item in inbox.follow(job_id, 60)][-1]


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (Redis tells nobody)
            await asyncio.sleep(0.02)


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


async def test_an_outcome_too_large_for_a_message_is_read_as_soon_as_it_is_there(
    inbox: OutcomeInbox, queue: JobQueue
) -> None:
    plain, streamed = job(reply_to=inbox.channel), job(reply_to=inbox.channel)
    await submit(queue, plain, streamed)
    held = await claim(queue, "int4")
    body = msgspec.Raw(b'"%s"' % (b"x" * 100_000))
    ends = [Finished(job=job, outcome=Outcome(state=State.FINISHED, status=200, body=body)) for job in held]
    with (
        inbox.opened(plain.job_id, is_stream=False) as box,
        inbox.opened(streamed.job_id, is_stream=True) as stream,
    ):
        reading = asyncio.create_task(inbox.outcome(plain.job_id, box, 10))
        items = inbox.items(streamed.job_id, stream, 10)
        await asyncio.sleep(0)
        await queue.finish("w-int4", ends)

        async with asyncio.timeout(outcomes.POLL_INTERVAL_S / 2):
            awaited, followed = await reading, await anext(items)

    assert awaited == ends[0].outcome
    assert followed == Outcome(state=State.FINISHED, status=200)  # its reader has the chunks


async def test_one_look_brings_no_more_outcomes_than_fit(queue: JobQueue) -> None:
    jobs = [job() for _ in range(5)]
    await submit(queue, *jobs)
    held = await claim(queue, "int4")
    done = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'"%s"' % (b"x" * 1000)))
    await queue.finish("w-int4", [Finished(job=job, outcome=done) for job in held])

    found = await queue.look([job.job_id for job in jobs], max_bytes=2500)
    whole = await queue.look([job.job_id for job in jobs])

    assert found == [done, done, Ended(), Ended(), Ended()]
    assert whole == [done] * 5


async def test_one_read_of_a_stream_brings_no_more_than_fits(queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    (claimed,) = await claim(queue, "int4")
    sizes = [300, 300, 50_000, MAX_READ, 2 * MAX_READ, *[300] * 1000]
    chunks = [Chunk(fence=claimed.fence, number=number, data=b"x" * size) for number, size in enumerate(sizes, 1)]
    for start in range(0, len(chunks), 100):
        await queue.emit("w-int4", [(mine.job_id, chunk) for chunk in chunks[start : start + 100]])

    reads: list[list[Chunk]] = []
    while not reads or reads[-1]:
        last = reads[-1][-1].number if reads else 0
        reads.append(await queue.chunks(mine.job_id, claimed.fence, last))

    assert [chunk for read in reads for chunk in read] == chunks
    assert [len(read) for read in reads[:3]] == [3, 1, 1]
    assert all(sum(len(chunk.data) for chunk in read) <= MAX_READ for read in reads if len(read) > 1)


async def test_an_inbox_keeps_a_bounded_part_of_what_its_reader_leaves_unread() -> None:
    box = Inbox()
    box.is_stored = True
    large = Chunk(fence=1, number=1, data=b"x" * MAX_UNREAD)
    done = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'"answer"'), chunks=3001)

    box.put(large)
    for number in range(2, 3002):
        box.put(chunk(1, number))
    for _ in range(5):
        box.put(Running(fence=1))
    for _ in range(5):
        box.put(done)
    is_looked_up = box.is_silent(box.heard_s)
    items = [item async for item in _emptied(box)]

    assert items[0] == Running(fence=1)  # the first one alone is too large
    kept = [item for item in items if isinstance(item, Chunk)]
    assert sum(len(chunk.data) for chunk in kept) <= MAX_UNREAD
    assert 100 < len(kept) < 3000
    assert items[len(kept) + 1 :] == [Running(fence=1), Outcome(state=State.FINISHED, status=200, chunks=3001)]
    assert not is_looked_up


async def _emptied(box: Inbox) -> AsyncIterator[Item]:
    while (item := await box.get(0)) is not None:
        yield item


async def test_an_inbox_gives_items_in_order_and_none_when_there_is_none_in_time() -> None:
    box = Inbox()
    box.put(chunk(1, 1))
    box.put(chunk(1, 2))

    first, second, none = await box.get(1), await box.get(1), await box.get(0.01)
    reading = asyncio.create_task(box.get(10))
    await asyncio.sleep(0)
    box.put(chunk(1, 3))

    assert (first, second, none, await reading) == (chunk(1, 1), chunk(1, 2), None, chunk(1, 3))


async def test_a_reader_that_was_cancelled_costs_the_next_one_nothing() -> None:
    box = Inbox()
    reading = asyncio.create_task(box.get(10))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])

    box.put(chunk(1, 1))

    assert await box.get(1) == chunk(1, 1)


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
    boxes = [inbox.opened(job.job_id, is_stream=False) for job in jobs]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(box) for box in boxes]

        done = [Outcome(state=State.FINISHED, status=200, text=job.job_id) for job in held]
        ends = [Finished(job=job, outcome=outcome) for job, outcome in zip(held, done, strict=True)]
        await queue.finish("w-int4", ends)

        assert [await box.get(5) for box in opened] == done
