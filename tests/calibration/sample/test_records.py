"""The values in a file: whole JSON or lines, gzip or not, and what is broken in them."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Callable

import pytest

from calibration.sample import records
from calibration.sample.prompt import Bad
from calibration.sample.records import read_values

LINES = b'{"prompt": "One"}\n\n{"prompt": "Two"}'
PRETTY = json.dumps({"prompt": "One", "more": {"a": 1}}, indent=2).encode()


def values(name: str, content: bytes) -> list[object]:
    return [json.loads(its) if isinstance(its, bytes) else its.reason for its in read_values(name, io.BytesIO(content))]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "2026/11/24/0001", "a.json"])
def test_lines_are_read_one_by_one_also_where_the_name_does_not_say_so(name: str) -> None:
    assert values(name, LINES) == [{"prompt": "One"}, {"prompt": "Two"}]


@pytest.mark.parametrize("name", ["2026/11/24/0001", "a.json"])
def test_an_object_may_take_many_lines(name: str) -> None:
    assert values(name, PRETTY) == [{"prompt": "One", "more": {"a": 1}}]


@pytest.mark.parametrize("torn", [b'{"prompt": "cut o', b'mpt": "cut off"}', b"", b"[1, 2"])
def test_a_torn_first_line_does_not_cost_those_behind_it(torn: bytes) -> None:
    content = torn + b"\n" + LINES

    found = list(read_values("0001", io.BytesIO(content)))

    assert [its for its in found if its != torn + b"\n"] == list(read_values("a.jsonl", io.BytesIO(LINES)))


@pytest.mark.parametrize("content", [PRETTY[:-4], b"[" * 100_000 + b"\n{", b'[{"prompt": "One"},\n{"prompt": "Two"}]'])
def test_what_has_no_line_that_is_an_object_is_one_value(content: bytes) -> None:
    assert list(read_values("0001", io.BytesIO(content))) == [content]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl", "0001"])
def test_gzip_is_told_by_its_first_bytes(name: str) -> None:
    assert values(name, gzip.compress(LINES)) == [{"prompt": "One"}, {"prompt": "Two"}]


def test_a_gzip_that_is_cut_off_gives_what_it_has_and_is_named() -> None:
    content = gzip.compress(b"".join(b'{"prompt": "%d"}\n' % number for number in range(20_000)))

    *found, last = values("a.jsonl.gz", content[: len(content) // 2])

    assert len(found) > 5000
    assert last == "broken gzip"


def test_a_line_that_is_too_long_is_skipped_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    content = b'{"prompt": "%s"}\n{"prompt": "Two"}\n' % (b"x" * 950)

    assert values("a.jsonl", content) == ["too large", {"prompt": "Two"}]
    assert list(read_values("a.json", io.BytesIO(content))) == [Bad("too large")]


@pytest.mark.parametrize("first", [b"", b'mpt": "torn"}\n'])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_lines_are_read_of_any_size_whatever_their_file_is_called(
    monkeypatch: pytest.MonkeyPatch, first: bytes, wrap: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    content = first + b"".join(b'{"prompt": "%d"}\n' % number for number in range(1000))

    found = list(read_values("0001", io.BytesIO(wrap(content))))

    assert [json.loads(its)["prompt"] for its in found[-1000:] if isinstance(its, bytes)] == [*map(str, range(1000))]
    assert len(found) == 1000 + bool(first)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("content", [LINES, b'{"prompt": "One"}'])
def test_a_mark_before_the_first_value_is_no_part_of_it(name: str, content: bytes) -> None:
    assert values(name, codecs.BOM_UTF8 + content) == values(name, content)
