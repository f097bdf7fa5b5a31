"""One command at a time is loaded, through whichever endpoint it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.commands.app import CHECKPOINT_STEPS, CONTROL_STEPS, INNER, STEPS
from tests.conftest import ROOT
from tests.warm_start import WarmStarts

# What commands import: each in an interpreter of its own would import it anew, for a second of CPU.
LOADED = WarmStarts(
    "bitladder.cli.commands", "calibration.commands.app", "matplotlib.figure", "scipy.stats", "sklearn.ensemble"
)
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def steps_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("[a-z]*.py") if "\ndef register(" in path.read_text())


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


def test_help_lists_every_step_and_loads_none() -> None:
    script = (
        "import sys; from calibration.commands import app; steps = [*app.STEPS, 'control']; "
        "sys.modules |= {f'calibration.commands.{name}': None for name in steps}; app.main(['--help'])"
    )

    done = run("-c", script)

    assert done.returncode == 0, done.stderr
    folder = ROOT / "calibration" / "commands"
    assert sorted([*CHECKPOINT_STEPS, *INNER]) == steps_in(folder)
    assert sorted(CONTROL_STEPS) == steps_in(folder / "control")
    assert [name for name in STEPS if name not in done.stdout] == []


@pytest.mark.parametrize("step", STEPS)
def test_every_step_explains_itself_with_an_example(step: str) -> None:
    done = LOADED.run("bitladder.cli.main", "calibrate", step, "--help", env=ENVIRONMENT)

    assert done.returncode == 0, done.stderr
    assert f"Example: bitladder calibrate {step}" in done.stdout


def test_wrong_input_ends_in_one_line_and_status_2(tmp_path: Path) -> None:
    done = run("-m", "bitladder.cli.main", "calibrate", "checkpoints", "--tiers", "int3", "--cache", str(tmp_path))

    assert done.returncode == 2
    assert done.stderr == "error: there is no recipe for tier 'int3'; known are bf16, int4, int8, fp8\n"


def test_a_step_whose_library_is_missing_says_which_and_where_to_read() -> None:
    script = (
        "import sys; from calibration.commands.app import main; sys.modules['rich.table'] = None; main(['checkpoints'])"
    )

    done = run("-c", script)

    assert done.returncode == 3
    assert done.stderr.startswith("error: module 'rich.table' is missing here; `calibrate checkpoints` needs it")
