"""Traces of three forms, and lines that are refused by their number."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from calibration.errors import InputError
from calibration.simulation.trace_files import read_arrivals

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
MOONCAKE = '{"timestamp": 500, "input_length": 6758, "output_length": 500, "hash_ids": [0]}\n'


def test_azures_form_is_read_packed_too(tmp_path: Path) -> None:
    (tmp_path / "trace.csv.gz").write_bytes(gzip.compress(AZURE.encode()))

    arrivals = read_arrivals(tmp_path / "trace.csv.gz", speed=2)

    assert arrivals.at_s.tolist() == pytest.approx([0, 4.314579 / 2])
    assert (arrivals.input_tokens.tolist(), arrivals.output_tokens.tolist()) == ([374, 396], [44, 109])


def test_mooncakes_form_and_recorded_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(MOONCAKE + MOONCAKE.replace("500,", "2000,", 1))
    (tmp_path / "r.jsonl").write_text(
        '{"at_s": 0, "input_tokens": 1, "output_tokens": 2, "lane": "batch", "score": {"entropy": 4.2}}\n'
        '{"at_s": 1.5, "input_tokens": 3, "output_tokens": 4, "floor": "fp8"}\n'
    )

    recorded = read_arrivals(tmp_path / "r.jsonl")

    assert read_arrivals(tmp_path / "m.jsonl").at_s.tolist() == [0, 1.5]
    assert recorded.lanes == ["batch", "normal"]
    assert recorded.floors == ["", "fp8"]
    assert [score and score.entropy for score in recorded.scores] == [4.2, None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MOONCAKE.replace("500,", "-1,", 1), "line 1: a time must be 0 or more, got -0.001 s"),
        (
            MOONCAKE + "\n" + MOONCAKE.replace("500,", "400,", 1),
            "line 3: times must be in order, got one 0.1 s earlier",
        ),
        (AZURE + "2023-11-16 18:15:40,1,1\n", "line 4: times must be in order"),
        (AZURE + "soon,1,1\n", "line 4: Invalid isoformat"),
        (AZURE + "2023-11-16 18:15:59,1\n", "line 4: must have 3 columns"),
        (AZURE + "2023-11-16 18:15:59,-1,1\n", "line 4: tokens must be 0 or more"),
        (MOONCAKE + "{}\n", "line 2: Object missing required field"),
        ("a,b\n1,2\n", "line 1: must have the columns TIMESTAMP"),
        (AZURE.splitlines()[0], "has no requests"),
    ],
)
def test_a_wrong_line_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(text)

    with pytest.raises(InputError) as refused:
        read_arrivals(tmp_path / "trace")

    assert says in str(refused.value)
