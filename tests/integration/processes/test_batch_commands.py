"""`bitladder batch submit`, `status`, `result`, `cancel` and `list` at a real intake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI
from typer.testing import CliRunner, Result

from bitladder.cli.batch.intake_batches import IntakeBatches
from bitladder.cli.commands import app
from bitladder.errors import BitladderError, ConfigError
from tests.conftest import Stack

EMBEDDING = '{"custom_id": "v", "url": "/v1/embeddings", "body": {"model": "smollm2", "input": "x"}}'


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "files"))
    stack.intake()
    return stack


def batch(stack: Stack, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["batch", *map(str, arguments), "--url", stack.url])


def test_a_file_goes_to_an_intake_and_its_answers_come_back(stack: Stack, tmp_path: Path) -> None:
    stack.worker("int4")
    source, output = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    source.write_text("first line\nsecond line\n" + '{"prompt": "x", "max_tokens": 0, "custom_id": "refused"}')

    options = ("--set", "max_tokens=2", "--window", "10m", "--metadata", "run=7")
    batch_id = batch(stack, "submit", source, *options).stdout.strip()
    watched = batch(stack, "status", batch_id, "--watch")
    shown = json.loads(batch(stack, "status", batch_id, "--json").stdout)
    fetched = batch(stack, "result", batch_id, "-o", output)
    whole = output.read_bytes()
    part = tmp_path / f"out.jsonl.{batch_id}.part"
    for length in (0, 10, whole.index(b"\n") + 1, len(whole) - 5, len(whole)):  # downloads that broke off there
        part.write_bytes(whole[:length])
        assert batch(stack, "result", batch_id, "-o", output).exit_code == 1
        assert output.read_bytes() == whole
    piped = batch(stack, "result", batch_id)
    listed = batch(stack, "list")

    assert (watched.exit_code, fetched.exit_code) == (1, 1)
    assert f"{batch_id} completed: 3 of 3 lines, 1 failed" in watched.stdout
    assert (shown["metadata"], shown["completion_window"]) == ({"run": "7"}, "10m")
    lines = [json.loads(line) for line in whole.splitlines()]
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in lines[:2]}
    assert texts == {"1": "first line", "2": "second line"}
    assert (lines[2]["custom_id"], lines[2]["response"]["status_code"]) == ("refused", 400)
    assert piped.stdout_bytes == whole
    assert listed.stdout.splitlines()[1].split("\t")[:5] == [batch_id, "completed", "3", "2", "1"]


def test_a_batch_that_runs_is_shown_cancelled_and_fetched_in_part(stack: Stack, tmp_path: Path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("a\nb\n")
    batch_id = batch(stack, "submit", source, "--model", "smollm2").stdout.strip()

    status = batch(stack, "status", batch_id)
    partly = batch(stack, "result", batch_id, "-o", output)
    cancelled = batch(stack, "cancel", batch_id)
    ended = batch(stack, "status", batch_id, "--watch")

    assert (status.exit_code, partly.exit_code, output.read_bytes()) == (0, 5, b"")
    assert "the results so far" in partly.stderr
    assert (cancelled.exit_code, cancelled.stdout.strip() in ("cancelling", "cancelled")) == (0, True)
    assert (ended.exit_code, " cancelled: " in ended.stdout) == (1, True)


def test_what_an_intake_refuses_is_said(stack: Stack, tmp_path: Path) -> None:
    source, single = tmp_path / "in.jsonl", tmp_path / "single.txt"
    single.write_text("the only model is meant")
    source.write_text('{"prompt": "x", "model": "unknown"}')
    batch_id = batch(stack, "submit", source).stdout.strip()

    failed = batch(stack, "status", batch_id, "--watch")
    source.write_text(f'{EMBEDDING}\n{{"prompt": "x"}}')
    errors = [
        batch(stack, *arguments).exception
        for arguments in (
            ("submit", source),
            ("submit", source, "--model", "m", "--metadata", "x"),
            ("submit", single, "--window", "soon"),
            ("status", "batch_none"),
        )
    ]

    assert failed.exit_code == 1
    assert "line 1: there is no model 'unknown' here" in failed.stderr
    assert "one route, got /v1/completions in line 2 after /v1/embeddings" in str(errors[0])
    assert [type(error) for error in errors[:2]] == [ConfigError, ConfigError]
    assert [error.status for error in errors[2:] if isinstance(error, BitladderError)] == [400, 404]
    with IntakeBatches(stack.url) as intake, pytest.raises(BitladderError, match="batch_none"):
        intake.cancel_batch("batch_none")
    with OpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
        assert [file.filename for file in client.files.list()] == ["in.jsonl"]  # that of the batch which was made
