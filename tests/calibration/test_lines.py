"""Lines of JSON: where one ends."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from calibration.lines import read_line, read_lines


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\r", "\v", "\x1c"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_ends_a_line_elsewhere_does_not_end_one_of_json(tmp_path: Path, inside: str, end: str) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": f"one{inside}two"}, ensure_ascii=False), "", json.dumps({"text": "three"})]
    path.write_bytes(end.join(lines).encode())

    found = read_lines(path, "text", lambda line, where: (read_line(line, where)[0], where))

    assert found == [(f"one{inside}two", f"{path}:1"), ("three", f"{path}:3")]


def test_a_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'{"text": "one"}')

    assert read_lines(path, "text", lambda line, where: read_line(line, where)[0]) == ["one"]


@pytest.mark.parametrize("line", ['{"text": null, "prompt": "one"}', '{"prompt": null, "text": "one"}'])
def test_a_field_without_a_value_does_not_hide_the_other(line: str) -> None:
    assert read_line(line, "here")[0] == "one"
