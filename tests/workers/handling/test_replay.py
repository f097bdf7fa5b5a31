"""workers/handling/replay.py: what of an answer that is run anew is behind what was sent of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.endpoints import Endpoint
from workers.handling.replay import DifferentAnswerError, Replay, is_repeatable


def event(*, run: str = "one", **choice: Any) -> bytes:  # noqa: ANN401
    fields = {"id": run, "created": len(run), "choices": [{"index": 0, "finish_reason": None, **choice}]}
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def usage(tokens: int, cached: int) -> bytes:
    fields = {"id": "x", "choices": [], "usage": {"total_tokens": tokens, "cached": cached}}
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def said(chunks: list[bytes]) -> list[Any]:
    """Return the choices of events, or their usage."""
    events = [msgspec.json.decode(line[6:]) for chunk in chunks for line in chunk.split(b"\n\n") if line]
    return [event["choices"][0] if event["choices"] else event["usage"] for event in events]


@given(st.text(max_size=40), st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)), st.integers(0, 40))
def test_what_was_sent_and_what_is_behind_it_are_the_answer_however_it_is_cut(
    text: str, cuts: list[int], other_cuts: list[int], sent: int
) -> None:
    def cut(places: list[int]) -> list[str]:
        marks = [0, *sorted(place for place in places if place <= len(text)), len(text)]
        return [text[start:end] for start, end in pairwise(marks)]

    before = [event(text=part) for part in cut(cuts)][:sent]
    replay = Replay(before)
    after = [replay.behind(event(run="two", text=part)) for part in cut(other_cuts)]

    assert replay.is_through
    assert "".join(choice["text"] for choice in said([*before, *after])) == text


def test_a_chunk_that_was_sent_in_part_goes_on_where_it_was_cut_under_the_first_id() -> None:
    replay = Replay([event(delta={"role": "assistant", "content": ""}) + event(delta={"content": "one tw"})])

    first = replay.behind(event(run="other", delta={"role": "assistant", "content": ""}))
    second = replay.behind(event(run="other", delta={"content": "one two"}, finish_reason="length"))

    assert first == b""
    assert second == event(delta={"content": "o"}, finish_reason="length")
    assert replay.behind(usage(7, 0)) == usage(7, 0).replace(b'"x"', b'"one"')[:-3] + b',"created":3}\n\n'


def test_what_is_thought_and_what_is_said_are_told_apart() -> None:
    thought = [event(delta={"reasoning": part}) for part in ("hm", " well")]
    replay = Replay([*thought, event(delta={"content": "a"})])

    behind = [replay.behind(event(delta=delta)) for delta in ({"reasoning": "hm well"}, {"content": "ab"})]

    assert said(behind) == [{"index": 0, "finish_reason": None, "delta": {"content": "b"}}]
    with pytest.raises(DifferentAnswerError):
        Replay(thought).behind(event(delta={"content": "hm well"}))
    with pytest.raises(DifferentAnswerError):
        Replay([*thought, event(delta={"content": "a"})]).behind(event(delta={"reasoning": "hm well, then"}))


def test_an_answer_that_was_sent_to_its_end_has_nothing_behind_it() -> None:
    chunks = [event(text="a"), event(text="", finish_reason="stop"), usage(3, 0)]
    replay = Replay(chunks)

    behind = [replay.behind(chunk) for chunk in (*chunks[:2], usage(3, 2))]

    assert behind == [b"", b"", b""]
    assert replay.is_through


@pytest.mark.parametrize(
    "other",
    [
        event(text="one x"),
        event(text="one two", finish_reason="stop"),
        event(text="one two", logprobs={"tokens": [1]}),
        event(index=1, text="one two"),
        b"data: {}x\n\n",
    ],
    ids=["text", "end", "log probabilities", "choice", "no JSON"],
)
def test_another_answer_is_noticed(other: bytes) -> None:
    replay = Replay([event(text="one"), event(text=" two", finish_reason="length")])

    with pytest.raises(DifferentAnswerError):
        replay.behind(other)


def test_a_shorter_answer_is_not_through() -> None:
    replay = Replay([event(text="one two")])

    assert replay.behind(event(text="one")) == b""
    assert not replay.is_through


def test_a_chunk_that_cannot_be_read_differs_or_is_behind() -> None:
    half = b'data: {"choices":[{"index":0,"text":"\\ud83d"}]}\n\n'
    through, at_the_beginning = Replay([event(text="a")]), Replay([event(text="a")])
    through.behind(event(text="a"))

    assert through.behind(half) == half
    with pytest.raises(DifferentAnswerError):
        at_the_beginning.behind(half)


@pytest.mark.parametrize(
    ("endpoint", "body", "is_it"),
    [
        (Endpoint.CHAT, {"temperature": 0}, True),
        (Endpoint.COMPLETIONS, {"temperature": 0.7, "seed": 1}, True),
        (Endpoint.COMPLETIONS, {"temperature": 0, "n": 1}, True),
        (Endpoint.CHAT, {}, False),
        (Endpoint.CHAT, {"temperature": 0.01}, False),
        (Endpoint.CHAT, {"temperature": 0, "n": 2}, False),
        (Endpoint.CHAT, {"temperature": "0"}, False),
        (Endpoint.RESPONSES, {"temperature": 0}, False),
    ],
)
def test_greedy_and_seeded_answers_of_one_choice_are_repeatable(
    endpoint: Endpoint, body: dict[str, object], is_it: bool
) -> None:
    assert is_repeatable(endpoint, msgspec.json.encode(body)) is is_it
