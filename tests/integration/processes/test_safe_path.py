"""Whatever folder a command is started in, no Python that it starts imports from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_until
from tests.integration.processes.test_up import up

BITLADDER = str(Path(sys.executable).with_name("bitladder"))
PACKAGES = ("bitladder", "workers", "dispatcher", "calibration", "msgspec", "structlog", "vllm")
TRAP = "import pathlib; pathlib.Path(__file__).with_name('ran').touch(); raise SystemExit('trapped')"
# What each command says when the program that it becomes is ours.
COMMANDS = {
    ("worker", "--tier", "int2"): "tier must be one of int4, int8, fp8, got 'int2'",
    ("worker", "--tier", "int4", "--metrics-port", "-1"): "worker.metrics_port",
    ("calibrate", "sample", "--help"): "--out",
    ("calibrate", "quantize", "--tier", "int4", "--python", sys.executable): "make quantize-env",
    ("config", "show"): "queue.lease_s",
    ("redis",): "redis.password",
}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder whose packages have the names of ours and of what ours import."""
    folder = tmp_path / "hostile"
    for name in PACKAGES:
        for file in ("__init__.py", "__main__.py", "run.py", "cli/__init__.py", "entrypoints/__init__.py"):
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_text(TRAP, encoding="utf-8")
    return folder


def sprung(folder: Path) -> list[Path]:
    return list(folder.rglob("ran"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_runs_ours(hostile: Path, command: tuple[str, ...]) -> None:
    settings = {"BITLADDER_CONFIG": str(ROOT / "bitladder.toml"), "BITLADDER_REDIS__PASSWORD": "x"}

    done = subprocess.run(
        [BITLADDER, *command], cwd=hostile, env=os.environ | settings, capture_output=True, text=True, timeout=60
    )

    assert sprung(hostile) == []
    assert COMMANDS[command] in done.stdout + done.stderr


def test_every_process_of_a_stack_runs_ours(hostile: Path, tmp_path: Path) -> None:
    with up(tmp_path / "stack", cwd=hostile) as stack:
        stack.wait_until_it_answers()
        stack.ctrl_c()
        assert stack.process.wait(60) == 0

    assert sprung(hostile) == []


def test_an_engine_runs_the_interpreter_s_own_vllm(hostile: Path) -> None:
    checkpoint = hostile / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}", encoding="utf-8")
    settings = {
        "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
        "BITLADDER_REDIS__URL": "redis://127.0.0.1:1/0",
        "BITLADDER_VLLM__PYTHON": sys.executable,  # it has none
        "BITLADDER_MODELS__SMOLLM2__TIERS__INT4__CHECKPOINT": str(checkpoint),
    }
    log = hostile / "log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [BITLADDER, "worker", "--tier", "int4"],
            cwd=hostile,
            env=os.environ | settings,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: b"vLLM ended with status" in log.read_bytes(), "its start fails", 40)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)

    assert sprung(hostile) == []
    assert b"No module named 'vllm'" in log.read_bytes()
