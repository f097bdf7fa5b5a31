"""Engines that fail, hang or are interrupted: the others are measured, nothing is lost, and no engine is left."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bitladder.settings.models_section import TierSettings
from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.evaluation_report import Report
from calibration.errors import EngineFailedError
from calibration.evaluate import engine
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.measures.likelihood import Likelihood
from calibration.evaluate.measures.measure import Measure
from calibration.evaluate.measures.own_tasks import Answered, OwnTasks
from calibration.evaluate.measures.pace import Pace
from calibration.evaluate.run_evaluation import Evaluator, ReportHeader, evaluate
from calibration.evaluate.store import Store
from calibration.evaluate.task_file import Task
from calibration.terminal.progress import Advance, Steps
from tests.conftest import ROOT, wait_until
from tests.fake_vllm import install

RIGHT = OwnTasks([Task(prompt="a", max_tokens=1, exact="token")])
PACE = Pace(["a"], {"cpu": "this one"})
# The fake engine serves no /tokenize: this measure fails.
FAILS = Likelihood("code", ["x"], 100, 1)
ABOUT = ReportHeader(model="m", sources={}, versions={})
INTERRUPTED = """
import asyncio, signal, sys
from pathlib import Path
from tests.calibration.evaluate.test_engines import ABOUT, candidate, evaluate, evaluation
from calibration.evaluate.measures.own_tasks import OwnTasks
from calibration.evaluate.task_file import Task
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to it
folder = Path(sys.argv[1])
its = evaluation(folder, OwnTasks([Task(prompt="hang", exact="?")] * 40))
print("measuring", flush=True)
asyncio.run(evaluate(candidate(folder, "bf16"), [], its, ABOUT))
"""


def evaluation(folder: Path, *measures: Measure[Any], output: io.StringIO | None = None) -> Evaluator:
    return Evaluator(
        measures=measures,
        vllm=VllmSettings(python=install(folder), start_timeout_s=30),
        engine_version="fake",
        top=1,
        store=Store(folder / "results"),
        steps=Steps(Console(file=output or io.StringIO(), width=200)),
    )


def candidate(folder: Path, name: str, *args: str) -> Candidate:
    path = folder / name
    path.mkdir()
    (path / "config.json").write_text('{"max_position_embeddings": 4096}')
    return Candidate(path, TierSettings(name=name, vllm_args=args), name[0] * 64)


async def run(its: Evaluator, *candidates: Candidate) -> Report:
    return await evaluate(candidates[0], candidates[1:], its, ABOUT)


async def test_one_engine_that_does_not_start_is_named_with_the_reason_and_the_others_are_measured(
    tmp_path: Path,
) -> None:
    output = io.StringIO()
    its = evaluation(tmp_path, RIGHT, PACE, output=output)
    broken = candidate(tmp_path, "broken", "--no-such-argument")

    report = await run(its, candidate(tmp_path, "bf16"), broken, candidate(tmp_path, "d"))

    assert [tier.tier for tier in report.tiers] == ["bf16", "d"]
    assert report.tiers[1].metrics["task.own"].value == 1
    assert "task.own" in report.tiers[1].recovery
    assert "unrecognized arguments: --no-such-argument" in report.failed["broken"]
    assert "failed: vLLM ended with status 2 while it started" in output.getvalue()


async def test_without_a_reference_the_others_are_measured_and_nothing_is_said_to_be_kept(tmp_path: Path) -> None:
    broken = candidate(tmp_path, "broken", "--no-such-argument")

    report = await run(evaluation(tmp_path, RIGHT), broken, candidate(tmp_path, "d"))

    assert report.reference == "broken"
    assert [(tier.tier, tier.recovery) for tier in report.tiers] == [("d", {})]


async def test_where_nothing_could_be_measured_there_is_no_report_and_every_reason_is_said(tmp_path: Path) -> None:
    broken = [candidate(tmp_path, name, f"--{name}") for name in ("a", "b")]

    with pytest.raises(EngineFailedError, match=r"(?s)nothing could be measured:\na: .*--a.*\nb: .*--b"):
        await run(evaluation(tmp_path, RIGHT), *broken)


async def test_what_was_measured_before_the_engine_failed_is_kept(tmp_path: Path) -> None:
    its, one = evaluation(tmp_path, RIGHT, FAILS), candidate(tmp_path, "a")

    with pytest.raises(EngineFailedError, match="the engine answered /tokenize with 404"):
        await run(its, one)

    assert set(its.stored(one)) == {"tasks"}


@pytest.mark.parametrize("force", [False, True])
async def test_what_was_measured_before_is_measured_again_only_if_that_is_wanted(tmp_path: Path, force: bool) -> None:
    output = io.StringIO()
    its, one = evaluation(tmp_path, RIGHT, output=output), candidate(tmp_path, "a")
    its.store.save("tasks", one.inputs(its.vllm, "fake") | {"inputs": RIGHT.inputs}, b"[]")

    report = await run(replace(its, force=force), one)

    assert ("starting the engine" in output.getvalue()) is force
    assert list(report.tiers[0].metrics) == (["task.own"] if force else [])


async def test_an_answer_that_does_not_come_is_an_engine_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_ANSWER_S", 0.2)
    hanging = OwnTasks([Task(prompt="hang", exact="?")] * 40)

    with pytest.raises(EngineFailedError, match=r"the engine did not answer /v1/completions in 0.2 s"):
        await run(evaluation(tmp_path, hanging), candidate(tmp_path, "a"))


async def test_an_error_of_a_measure_is_not_the_engine_s(tmp_path: Path) -> None:
    class NoSandbox(OwnTasks):
        async def take(self, asker: engine.Asker, advance: Advance) -> list[Answered]:
            raise FileNotFoundError("bwrap")

    with pytest.raises(FileNotFoundError, match="bwrap"):
        await run(evaluation(tmp_path, NoSandbox([])), candidate(tmp_path, "a"))


def children(pid: int) -> set[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(line) for line in found.stdout.split()}


def test_an_interrupted_evaluation_leaves_no_engine(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"measuring\n"
        wait_until(lambda: bool(children(process.pid)), "the engine runs")
        engines = children(process.pid)

        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode != 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in engines)
