"""Traces of three forms, and lines that are refused by their number."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.workload.traces import read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
QUOTED = "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in AZURE.splitlines())
MOONCAKE = '{"timestamp": 500, "input_length": 6758, "output_length": 500, "hash_ids": [0, 7]}\n'


@pytest.mark.parametrize("text", [AZURE, QUOTED, AZURE.replace("\n", "\r\n"), "\ufeff" + AZURE])
@pytest.mark.parametrize("is_packed", [False, True])
def test_azures_form_is_read_however_it_is_packed(text: str, is_packed: bool, tmp_path: Path) -> None:
    content = text.encode()
    (tmp_path / "trace").write_bytes(gzip.compress(content) if is_packed else content)

    requests = list(read_trace(tmp_path / "trace", speed=2))

    assert [request.at_s for request in requests] == pytest.approx([0, 4.314579 / 2], abs=1e-6)
    assert [(request.input_tokens, request.output_tokens) for request in requests] == [(374, 44), (396, 109)]
    assert len(list(read_trace(tmp_path / "trace", limit=1))) == 1


def test_mooncakes_form_and_recorded_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(MOONCAKE + MOONCAKE.replace("500,", "2000,", 1))
    (tmp_path / "r.jsonl").write_text(
        '{"at_s": 0, "input_tokens": 1, "output_tokens": 2, "lane": "batch", "score": {"entropy": 4.2}}\n'
        '{"at_s": 1.5, "input_tokens": 3, "output_tokens": 4, "floor": "fp8", "deadline_s": 2, "tenant": "a"}\n'
    )

    shared = list(read_trace(tmp_path / "m.jsonl"))
    recorded = list(read_trace(tmp_path / "r.jsonl"))

    assert [(request.at_s, request.blocks) for request in shared] == [(0, (0, 7)), (1.5, (0, 7))]
    assert [request.lane for request in recorded] == ["batch", "normal"]
    assert [request.floor for request in recorded] == ["", "fp8"]
    assert [request.score and request.score.entropy for request in recorded] == [4.2, None]
    assert (recorded[1].deadline_s, recorded[1].tenant) == (2, "a")


def test_a_trace_that_is_not_in_order_is_put_in_order_only_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(MOONCAKE + MOONCAKE.replace("500,", "400,", 1))

    with pytest.raises(ConfigError, match=r"line 2: times must be in order, got one 0\.1 s earlier; --sort"):
        list(read_trace(tmp_path / "trace"))

    assert [request.at_s for request in read_trace(tmp_path / "trace", sort=True)] == pytest.approx([0, 0.1])


RECORDED = '{"at_s": 0, "input_tokens": 1, "output_tokens": 2}\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MOONCAKE.replace("500,", "-1,", 1), "line 1: a time must be 0 or more, and below 1e11 s, got -0.001 s"),
        (RECORDED.replace("0", "1e400"), "line 1: "),
        (RECORDED.replace("0", "1e12"), "line 1: a time must be 0 or more, and below 1e11 s, got 1e+12 s"),
        (MOONCAKE + "\n" + MOONCAKE.replace("500,", "400,", 1), "line 3: times must be in order"),
        (AZURE + "2023-11-16 18:15:40,1,1\n", "line 4: times must be in order"),
        (AZURE + "soon,1,1\n", "line 4: Invalid isoformat"),
        (AZURE + "2023-11-16 18:15:59,1\n", "line 4: GeneratedTokens must be a number of tokens, got ''"),
        (AZURE + "2023-11-16 18:15:59,-1,1\n", "line 4: ContextTokens must be a number of tokens, got '-1'"),
        (RECORDED.replace("2", "-2"), "line 1: tokens must be 0 to 100,000,000, got 1 and -2"),
        (RECORDED.replace("2", "1000000000"), "line 1: tokens must be 0 to 100,000,000, got 1 and 1000000000"),
        (RECORDED.replace("}", ', "deadline_s": -1}'), "line 1: deadline_s must be above 0, got -1"),
        (RECORDED.replace("}", ', "lane": "fast"}'), "line 1: Invalid enum value 'fast'"),
        (MOONCAKE + "{}\n", "line 2: Object missing required field"),
        ('{"timestamp": 1', "line 1: "),
        (RECORDED.replace("}", ', "more": ' + 100_000 * "[" + 100_000 * "]" + "}"), "line 1: maximum recursion depth"),
        ("", "has no requests"),
        ("a,b\n1,2\n", "line 1: must have the columns TIMESTAMP"),
        (AZURE.splitlines()[0], "has no requests"),
    ],
)
def test_a_wrong_line_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(text)

    with pytest.raises(ConfigError) as refused:
        list(read_trace(tmp_path / "trace"))

    assert says in str(refused.value)
