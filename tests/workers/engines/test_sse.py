"""workers/engines/sse.py: events by WHATWG's rules, wherever the bytes are cut."""

from __future__ import annotations

import random

import pytest

from workers.engines import sse
from workers.engines.sse import Event, EventParser, EventTooLargeError

CASES: dict[str, tuple[bytes, list[Event]]] = {
    "one line": (b'data: {"a":1}\n\n', [Event(b'{"a":1}')]),
    "no space": (b"data:x\n\n", [Event(b"x")]),
    "one space of two": (b"data:  x\n\n", [Event(b" x")]),
    "CR": (b"data: x\r\rdata: y\r\r", [Event(b"x"), Event(b"y")]),
    "CRLF": (b"data: x\r\n\r\ndata: y\r\n\r\n", [Event(b"x"), Event(b"y")]),
    "all line ends": (b"data: x\r\ndata: y\rdata: z\n\r\n", [Event(b"x\ny\nz")]),
    "several data lines": (b'data: {"a":\ndata: 1}\n\n', [Event(b'{"a":\n1}')]),
    "an empty data line": (b"data: x\ndata\ndata:\n\n", [Event(b"x\n\n")]),
    "comments": (b": ping\n\ndata: x\n: in between\n\n:\n\n", [Event(b"x")]),
    "comment, id, retry, event and data": (
        b": hello\nid: 7\nretry: 100\nevent: message\ndata: x\n\n",
        [Event(b"x", b"message")],
    ),
    "an event of a type": (b"event: error\ndata: x\n\ndata: y\n\n", [Event(b"x", b"error"), Event(b"y")]),
    "a type without data is forgotten": (b"event: error\n\ndata: x\n\n", [Event(b"x")]),
    "id and retry alone": (b"id: 1\n\nretry: 5\n\n", []),
    "unknown fields": (b"foo: bar\ndata: x\ndatax: y\n\n", [Event(b"x")]),
    "empty data": (b"data:\n\n", [Event(b"")]),
    "byte order mark": (b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n", [Event(b"x")]),
    "what looks like a line end and is none": (
        "data: a\x0bb\x0cc\x1c\x85\u2028d\n\n".encode(),
        [Event("a\x0bb\x0cc\x1c\x85\u2028d".encode())],
    ),
    "no empty line at the end": (b"data: x\n\ndata: y\n", [Event(b"x")]),
}


def parsed(*chunks: bytes) -> list[Event]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(("stream", "events"), CASES.values(), ids=list(CASES))
def test_a_stream_is_read_as_the_standard_says_however_it_is_cut(stream: bytes, events: list[Event]) -> None:
    assert parsed(stream) == events
    assert parsed(*(bytes([byte]) for byte in stream)) == events
    for at in range(len(stream)):
        assert parsed(stream[:at], stream[at:]) == events


def test_the_same_events_come_out_of_any_cuts_of_many() -> None:
    rng = random.Random(7)  # noqa: S311  (cuts that are the same at every run)
    stream = b"".join(stream for name, (stream, _) in CASES.items() if name not in ("byte order mark",)) + b"\n"
    whole = parsed(stream)

    for _ in range(100):
        cuts = sorted(rng.sample(range(len(stream)), 40))
        assert parsed(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))) == whole


def test_what_stands_at_the_end_without_an_empty_line_is_told_apart() -> None:
    for tail in (b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r"):
        parser = EventParser()

        assert parser.feed(b"data: x\n\n" + tail) == [Event(b"x")]
        assert parser.end().data == b"[DONE]"


@pytest.mark.parametrize("chunk", [b"x" * 1000, b"data: x\n", b"data\n" * 100])
def test_an_event_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch, chunk: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10_000)

    with pytest.raises(EventTooLargeError, match="at most 10000 bytes"):
        parsed(*[chunk] * 2000)


def test_comments_without_an_end_are_no_event_and_keep_nothing() -> None:
    parser = EventParser()
    for _ in range(200_000):
        assert parser.feed(b": keep-alive\n") == []

    assert parser.feed(b"data: x\n\n") == [Event(b"x")]


def test_a_long_event_in_many_reads_takes_time_that_grows_with_its_length() -> None:
    parser, chunk = EventParser(), b"x" * 1024
    parser.feed(b"data: ")
    for _ in range(8 * 1024):  # quadratic, it would be 32 GB of copying
        parser.feed(chunk)

    assert len(parser.feed(b"\n\n")[0].data) == 8 * 1024 * 1024
