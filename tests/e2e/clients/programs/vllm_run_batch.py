"""vLLM's own types of run_batch, over files that lie in the home folder: NAME.jsonl in, NAME.WAY.out.jsonl out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checks import check, run_checks
from vllm.entrypoints.launchers.run_batch import BatchRequestInput, BatchRequestOutput, BatchResponseData

OUTPUTS = sorted(Path.home().glob("*.out.jsonl"))
INPUTS = sorted(set(Path.home().glob("*.jsonl")) - set(OUTPUTS))


def lines(paths: list[Path]) -> Iterator[tuple[str, str]]:
    assert paths
    return ((path.name, line) for path in paths for line in path.read_text().splitlines())


@check
def run_batch_takes_the_inputs() -> None:
    for _, line in lines(INPUTS):
        BatchRequestInput.model_validate_json(line)


@check
def answers_are_as_run_batch_writes_them() -> None:
    for name, text in lines(OUTPUTS):
        line: dict[str, Any] = json.loads(text)
        assert line.keys() == BatchRequestOutput.model_fields.keys(), name
        assert line["response"].keys() == BatchResponseData.model_fields.keys(), name
        read = BatchRequestOutput.model_validate_json(text)
        assert (read.response.status_code, read.error) == (200, None), (name, text)
        assert read.id and read.response.request_id and read.response.body, name


run_checks()
