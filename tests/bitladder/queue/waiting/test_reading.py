"""bitladder/queue/waiting/reading.py: answers that several executions have made, each going on with the one before."""

from __future__ import annotations

import pytest

from bitladder.contract import Chunk, Outcome, State
from bitladder.queue.waiting.reading import Reading, StreamGapError, StreamRestartedError


def chunk(fence: int, number: int, after: int = 0) -> Chunk:
    return Chunk(fence=fence, number=number, data=b"x", after=after)


def finished(fence: int, chunks: int, streamed_by: int = 0) -> Outcome:
    return Outcome(state=State.FINISHED, status=200, fence=fence, chunks=chunks, streamed_by=streamed_by)


def read(reading: Reading, *chunks: Chunk) -> None:
    for one in chunks:
        reading.take(one)


def test_a_reader_goes_on_with_the_execution_that_goes_on_with_the_one_it_read() -> None:
    reading = Reading()

    read(reading, chunk(10, 1), chunk(10, 2), chunk(20, 3, after=10), chunk(20, 4), chunk(30, 5, after=20))

    reading.close(finished(30, 5))
    reading.close(finished(40, 5, streamed_by=30))  # all of it had been sent before


@pytest.mark.parametrize(
    "other",
    [chunk(20, 1), chunk(20, 3), chunk(20, 3, after=5), chunk(20, 4, after=10), chunk(20, 2, after=10)],
    ids=["anew", "unsaid", "of another", "of more than was read", "of less than was read"],
)
def test_a_reader_takes_nothing_of_an_execution_that_goes_on_with_something_else(other: Chunk) -> None:
    reading = Reading()
    read(reading, chunk(10, 1), chunk(10, 2))

    with pytest.raises(StreamRestartedError):
        reading.take(other)


def test_a_reader_that_resumes_before_the_first_event_of_a_chunk_does_not_take_another_answer_for_it() -> None:
    with pytest.raises(StreamRestartedError):
        Reading(10, 0).take(chunk(20, 1))


@pytest.mark.parametrize("outcome", [finished(20, 2), finished(20, 1, streamed_by=10), finished(30, 2, streamed_by=20)])
def test_an_answer_is_not_whole_for_who_read_another_one_or_more_of_it_than_there_is(outcome: Outcome) -> None:
    reading = Reading()
    read(reading, chunk(10, 1), chunk(10, 2))

    with pytest.raises(StreamRestartedError):
        reading.close(outcome)


def test_who_has_read_nothing_begins_with_the_first_execution_of_the_answer() -> None:
    reading = Reading()

    assert reading.begins_before(chunk(20, 3, after=10))
    assert not reading.begins_before(chunk(20, 1))
    assert reading.start_of(finished(30, 5, streamed_by=20)) == (20, 0)
    with pytest.raises(StreamGapError):
        reading.take(chunk(20, 3, after=10))  # its beginning is not stored


def test_who_has_read_some_is_not_sent_back_and_lacks_what_later_executions_added() -> None:
    reading = Reading(10, 2)

    assert not reading.begins_before(chunk(20, 3, after=10))
    assert reading.lacks(finished(20, 4))
    assert not reading.lacks(finished(20, 2, streamed_by=10))
    assert reading.start_of(finished(20, 4)) == (10, 2)
