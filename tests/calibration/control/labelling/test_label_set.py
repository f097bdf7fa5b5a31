"""What a labelling run leaves in its folder, whatever becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from calibration.control.labelling.label_set import LabelRequest, label_set
from calibration.errors import EngineFailedError
from calibration.terminal.progress import Steps
from tests.calibration.control.labelling.test_run_labelling import OPTIONS, Chains
from tests.calibration.evaluate.chain import Chain
from workers.engines.base import Answer, OnChunk


class Failing(Chain):
    """Answers nothing."""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        del endpoint, body, on_chunk
        return Answer(status=500, body=b"broken")


def write_prompts(folder: Path, **more: str) -> Path:
    path = folder / "prompts.jsonl"
    texts = [f"{letter}bcdef" for letter in "abcdefghijkl"]
    path.write_text("".join(json.dumps({"prompt": text, "chat": False} | more) + "\n" for text in texts))
    return path


async def run(askers: Chains, prompts: Path, out: Path, answers: int = 1) -> dict[str, Any]:
    request = LabelRequest(prompts, out, "top", ["low"], answers=answers, options=OPTIONS)
    return await label_set(askers, request, Steps(Console(quiet=True)), lambda _: None)


async def test_more_answers_that_fail_leave_the_labels_of_one_answer(tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path), tmp_path / "labels"
    await run(Chains(low=Chain({"h": "j"}), top=Chain()), prompts, out)
    before = (out / "labels.jsonl").read_bytes()

    with pytest.raises(EngineFailedError):
        await run(Chains(low=Failing(), top=Chain()), prompts, out, answers=4)

    assert before.count(b"\n") == 12
    assert (out / "labels.jsonl").read_bytes() == before


@pytest.mark.parametrize("kind", ["$PATH_$HOME", "a$b", r"\$x^$"])
async def test_a_kind_is_drawn_as_it_is_written(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "labels"
    report = await run(Chains(low=Chain({"h": "j"}), top=Chain()), write_prompts(tmp_path, kind=kind), out)

    assert list(report["tiers"]["low"]["by_kind"]) == [kind]
    assert (out / "report.html").exists()
