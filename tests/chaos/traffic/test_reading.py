"""tests/chaos/traffic/reading.py: a reader that finds nothing must be shown to find what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.chaos.traffic.orders import Delivery, Order
from tests.chaos.traffic.reading import Reading, events_in

ORDER = Order(number=7, delivery=Delivery.EVENTS, body={"model": "smollm2", "prompt": "n0000007 aa", "max_tokens": 4})
WORDS = ("n0000007", " aa", " n0000007", " aa")


def chunk(place: int, answer_id: str = "first") -> dict[str, Any]:
    return {"id": answer_id, "choices": [{"index": 0, "text": WORDS[place]}]}


def read(*chunks: tuple[str, int, str]) -> Reading:
    """Take events, each of an id, the place of its word and the id of its answer, and then [DONE]."""
    reading = Reading(ORDER, "events")
    for event_id, place, answer_id in chunks:
        reading.take(chunk(place, answer_id), event_id)
    reading.done()
    return reading


def whole(fence: int, answer_id: str = "first", count: int = 4) -> list[tuple[str, int, str]]:
    return [(f"{fence}-{place + 1}-1", place, answer_id) for place in range(count)]


def kinds(reading: Reading) -> list[str]:
    return [line.split(":")[0] for line in reading.found]


def test_a_stream_that_is_whole_is_not_complained_about() -> None:
    reading = read(*whole(1))

    assert reading.found == []
    assert reading.outcome is not None
    assert reading.outcome.text == ORDER.expected


def test_a_chunk_may_begin_with_an_event_that_has_no_text() -> None:
    reading = Reading(ORDER, "events")
    first, *others = whole(1)
    reading.take({"id": "first", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}, "1-1-1")
    for event_id, place, _ in [("1-1-2", *first[1:]), *others]:
        reading.take(chunk(place), event_id)
    reading.done()

    assert reading.found == []


def test_a_stream_without_event_ids_is_held_to_its_words_too() -> None:
    assert kinds(read(("", 0, "x"), ("", 1, "x"), ("", 2, "x"), ("", 3, "x"))) == []
    assert kinds(read(("", 0, "x"), ("", 2, "x"), ("", 3, "x"))) == ["CHUNK", "HOLE"]


def test_a_missing_chunk_is_a_gap_and_the_end_comes_too_soon() -> None:
    first, _, third, fourth = whole(1)

    assert kinds(read(first, third, fourth)) == ["GAP", "CHUNK", "HOLE"]
    assert kinds(read(*whole(1, count=3))) == ["HOLE"]


def test_a_chunk_that_is_read_twice_is_found() -> None:
    first, second, third, fourth = whole(1)

    assert kinds(read(first, second, second, third, fourth)) == ["GAP", "CHUNK", "HOLE"]


def test_two_executions_that_are_glued_together_are_found_by_either_id() -> None:
    assert kinds(read(*whole(1)[:2], *whole(2)[2:])) == ["GLUED"]
    assert kinds(read(*whole(1)[:2], *whole(1, "second")[2:])) == ["FOREIGN"]


def test_an_answer_that_can_be_repeated_goes_on_in_a_later_execution_at_the_next_chunk_and_under_its_id() -> None:
    greedy = replace(ORDER, body=ORDER.body | {"temperature": 0})

    def kinds_of(*chunks: tuple[str, int, str]) -> list[str]:
        reading = Reading(greedy, "events")
        for event_id, place, answer_id in chunks:
            reading.take(chunk(place, answer_id), event_id)
        reading.done()
        return kinds(reading)

    first, second, *_ = whole(1)
    assert kinds_of(first, second, *whole(2)[2:]) == []
    assert kinds_of(first, second, *whole(2, "second")[2:]) == ["FOREIGN"]
    assert kinds_of(first, second, ("2-1-1", 2, "first"), ("2-2-1", 3, "first")) == ["GLUED", "GAP"]


def test_what_is_begun_anew_is_read_from_its_start_and_by_another_execution() -> None:
    def begun_anew(fence: int) -> Reading:
        reading = Reading(ORDER, "events")
        for event_id, place, _ in whole(3, count=2):
            reading.take(chunk(place), event_id)
        reading.take({"error": {"code": "stream_restarted", "message": ""}})
        assert reading.last_id == ""
        for event_id, place, _ in whole(fence):
            reading.take(chunk(place, "second"), event_id)
        reading.done()
        return reading

    newer, same = begun_anew(4), begun_anew(3)

    assert (newer.found, newer.went_back) == ([], [])
    assert same.found == []
    [(begin_s, end_s, sentence)] = same.went_back
    assert begin_s <= end_s
    assert sentence == "GLUED: events n0000007, read by events: began anew with execution 3 behind 3"


def test_an_error_that_ends_the_job_is_its_outcome_and_an_outage_is_none() -> None:
    reading = Reading(ORDER, "events")
    reading.take({"error": {"code": "queue_unreachable", "message": ""}})
    before = reading.outcome
    reading.take({"error": {"code": "deadline_exceeded", "message": ""}})

    assert before is None
    assert reading.outcome is not None
    assert reading.outcome.state == "expired"


def test_an_event_is_read_as_the_standard_says() -> None:
    assert events_in([b"id: 1-2-3", b"data: {", b"data:}"]) == ("1-2-3", b"{\n}")
    assert events_in([b": a comment"]) == ("", b"")
