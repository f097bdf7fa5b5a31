"""bitladder/cli/batch/input_file.py: what a file must be is said before anything of it runs."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import pytest

from bitladder.cli.batch.input_file import MAX_ERRORS, InputFile
from bitladder.errors import ConfigError
from bitladder.routing.batch_input.line_forms import BatchLine

OPENAI = '{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}'
FIELDS = {"model": "default", "temperature": 0}


def opened(tmp_path: Path, text: str | bytes, max_line_bytes: int = 1000) -> InputFile:
    path = tmp_path / "in.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return InputFile(str(path), FIELDS, max_line_bytes)


def read(tmp_path: Path, text: str | bytes) -> dict[int, BatchLine]:
    source = opened(tmp_path, text)
    numbers = list(source.check().numbers)
    lines = dict(source.read())
    source.close()
    assert numbers == list(lines)
    return lines


def test_lines_of_all_forms_become_requests_and_take_the_fields_that_they_lack(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "user", "content": "hi"}], "temperature": 1}'
    embedding = '{"custom_id": 7, "prompt": "y"}'
    nested = '{"custom_id": "b", "url": "/v1/embeddings", "body": {"input": "z"}}'

    lines = read(tmp_path, f"just text\n\n{OPENAI}\n{chat}\r\n{embedding}\n{nested}")

    assert {n: (line.custom_id, line.url, json.loads(line.body)) for n, line in lines.items()} == {
        1: ("1", "/v1/completions", {"prompt": "just text", **FIELDS}),
        3: ("a", "/v1/completions", {"model": "m", "prompt": "x", "temperature": 0}),
        4: ("4", "/v1/chat/completions", json.loads(chat) | {"model": "default"}),
        5: ("7", "/v1/completions", {"prompt": "y", **FIELDS}),
        6: ("b", "/v1/embeddings", {"input": "z", **FIELDS}),
    }


def test_a_gzip_file_is_read_as_what_it_holds(tmp_path: Path) -> None:
    packed, plain = gzip.compress(OPENAI.encode()), OPENAI

    assert read(tmp_path, packed) == read(tmp_path, plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{OPENAI}\n{OPENAI[:-9]}", r"line 2: .*begins like JSON"),
        (f"{OPENAI}\nb\n{OPENAI}", r"line 3: custom_id: it must be unique, and line 1 has it, too"),
        ('{"custom_id": "2", "prompt": "x"}\nits number is 2', r"line 2: custom_id: it must be unique"),
        (OPENAI.replace('"prompt": "x"', '"stream": true'), r"line 1: body.stream: .*no streams"),
        (OPENAI.replace("POST", "GET"), r"line 1: method: "),
        ("\n \n", "it has no lines"),
        ("x" * 1001, r"line 1: a line may have 1000 bytes at most, got 1001"),
        (b"\xff\xfe", r"line 1: .*UTF-8"),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], "begins like a gzip file, and is none"),
        (b"\x1f\x8bxxxx", "begins like a gzip file, and is none"),
        ('{"messages": []}\n' + '{"n": 1}\n' * (MAX_ERRORS + 5), r"line 21: [^\n]*\n  and 5 more"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with contextlib.closing(opened(tmp_path, text)) as source, pytest.raises(ConfigError, match=message):
        source.check()
