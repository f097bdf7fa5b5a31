"""Lines of JSON: where one ends."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.errors import InputError
from calibration.texts import decoding
from calibration.texts.jsonl import read_line, read_lines


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\r", "\v", "\x1c"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_ends_a_line_elsewhere_does_not_end_one_of_json(tmp_path: Path, inside: str, end: str) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": f"one{inside}two"}, ensure_ascii=False), "", json.dumps({"text": "three"})]
    path.write_bytes(end.join(lines).encode())

    found = read_lines(path, "text", lambda line, where: (read_line(line, where)[0], where))

    assert found == [(f"one{inside}two", f"{path}:1"), ("three", f"{path}:3")]


def texts(path: Path) -> list[str]:
    return read_lines(path, "text", lambda line, where: read_line(line, where)[0])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
@pytest.mark.parametrize("chunk", [1, 2**18])
def test_lines_end_and_are_written_as_other_programs_do_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    encoding: str,
    wrap: Callable[[bytes], bytes],
    chunk: int,
) -> None:
    monkeypatch.setattr(decoding, "CHUNK", chunk)
    path = tmp_path / "texts.jsonl"
    path.write_bytes(wrap(end.join(['{"text": "Oné"}', "", '{"prompt": "Two", "loss": NaN}', ""]).encode(encoding)))

    assert texts(path) == ["Oné", "Two"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"text": "one"}\n{"text": "\xff"}', "texts.jsonl:2: byte 0xff is no UTF-8"),
        (
            gzip.compress(b'{"text": "one"}\n' * 500, mtime=0)[:-9],
            "texts.jsonl: gzip is cut off, expected lines of JSON",
        ),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "texts.jsonl: Zstandard, expected lines of JSON, in gzip or not"),
        (b'{"text": "' + b"x" * 8_000_000, "texts.jsonl:1: more than 8,000,000 characters in one line"),
        (b" \n\n", "there is no text in"),
        (b'{"text": "one"}{"text": "two"}', "texts.jsonl:1: not JSON: Extra data"),
    ],
)
def test_a_file_of_another_kind_is_named_and_not_half_read(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)

    with pytest.raises(InputError, match=complaint):
        texts(path)


def test_a_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'{"text": "one"}')

    assert read_lines(path, "text", lambda line, where: read_line(line, where)[0]) == ["one"]


@pytest.mark.parametrize(
    "line", ['{"text": "", "prompt": "one"}', '{"text": null, "prompt": "one"}', '{"prompt": null, "text": "one"}']
)
def test_a_field_without_a_value_does_not_hide_the_other(line: str) -> None:
    assert read_line(line, "here")[0] == "one"
