"""The input files of vLLM's run_batch, as its documentation and its tests have them, by both ways of a batch.

vLLM's own types judge what comes out, in the engine's environment; no engine runs. A batch of OpenAI's has one url, so
a file with several of them is one batch for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Stack
from tests.e2e.clients.test_clients import PROGRAMS, failures
from tests.integration.batches.test_batches import BatchUser

pytestmark = pytest.mark.clients
Body = dict[str, Any]
HELPFUL = {"role": "system", "content": "You are a helpful assistant."}
HELLO = {"role": "user", "content": "Hello world!"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
PAIRS = {"documents": ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]}
QUESTION = "What is the capital of France?"
# By file: the url and the body of each line.
FILES: dict[str, list[tuple[str, Body]]] = {
    "chats": [
        ("/v1/chat/completions", {"messages": [HELPFUL, HELLO], "max_completion_tokens": 1000}),
        ("/v1/chat/completions", {"messages": [HELLO], "max_tokens": 8, "tools": [TOOL], "tool_choice": "none"}),
    ],
    "embeddings": [
        ("/v1/embeddings", {"input": "You are a helpful assistant."}),
        ("/v1/embeddings", {"input": ["Hello", "world"]}),
    ],
    "scores": [
        ("/score", {"queries": QUESTION} | PAIRS),
        ("/v1/score", {"queries": QUESTION} | PAIRS),
    ],
    "ranks": [(url, {"query": QUESTION} | PAIRS) for url in ("/rerank", "/v1/rerank", "/v2/rerank")],
}


def lines_of(name: str, model: str = "smollm2") -> list[Body]:
    return [
        {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": {"model": model} | body}
        for number, (url, body) in enumerate(FILES[name], 1)
    ]


def jsonl(lines: list[Body]) -> bytes:
    return b"\n".join(json.dumps(line).encode() for line in lines)


def run(stack: Stack, source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", "batch", "run", str(source), "-o", str(output)]
    return subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    return stack


def test_answers_have_the_form_that_run_batch_writes(stack: Stack, tmp_path: Path) -> None:
    python, user = ROOT / ".venv-engine/bin/python", BatchUser(stack)
    if not python.exists():
        pytest.skip("there is no .venv-engine: make engine-env")
    for name in FILES:
        source, lines = tmp_path / f"{name}.jsonl", lines_of(name)
        source.write_bytes(jsonl(lines))

        done = run(stack, source, output := tmp_path / f"{name}.run.out.jsonl")
        batches = []
        for url, of_url in groupby(lines, key=lambda line: line["url"]):
            file = user.client.files.create(file=("in.jsonl", jsonl(list(of_url))), purpose="batch")
            batch = user.client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")
            ended = user.wait(batch.id)
            assert (ended.status, ended.error_file_id, ended.errors) == ("completed", None, None), url
            batches += user.client.files.content(ended.output_file_id or "").text.splitlines(keepends=True)
        (tmp_path / f"{name}.batch.out.jsonl").write_text("".join(batches))

        assert done.returncode == 0, done.stderr
        ids = [line["custom_id"] for line in lines]
        assert [json.loads(line)["custom_id"] for line in output.read_text().splitlines()] == ids
        assert sorted(json.loads(line)["custom_id"] for line in batches) == ids

    assert failures(stack, [str(python), str(PROGRAMS / "vllm_run_batch.py")], tmp_path) == ""


def test_a_line_that_run_batch_answers_with_an_error_has_openai_s(stack: Stack, tmp_path: Path) -> None:
    lines = [*lines_of("chats"), lines_of("chats", "NonExistModel")[0] | {"custom_id": "unknown"}]
    lines.append(lines[0] | {"custom_id": "bad", "url": "/bad_url"})
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(jsonl(lines))

    done = run(stack, source, output)

    seen = {line["custom_id"]: line for line in map(json.loads, output.read_text().splitlines())}
    assert done.returncode == 1, done.stderr
    codes = {name: line["response"]["status_code"] for name, line in seen.items()}
    assert codes == {"request-1": 200, "request-2": 200, "unknown": 404, "bad": 400}
    for name in ("unknown", "bad"):
        assert seen[name].keys() == {"id", "custom_id", "response", "error"}
        assert isinstance(seen[name]["response"]["body"]["error"]["message"], str)
