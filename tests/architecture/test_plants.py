"""The import contracts of pyproject.toml catch what they are for: violations are planted in a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

PACKAGES = ("bitladder", "dispatcher", "workers", "calibration")


class Plant(NamedTuple):
    """One line that has no place in one file, and what the contracts say of it."""

    file: str
    line: str
    message: str


PLANTS = {
    "settings in the quantizer's environment": Plant(
        "calibration/quantization/recipe.py",
        "from bitladder.settings.sections import Settings",
        "calibration.quantization.recipe -> bitladder.settings.sections",
    ),
    "a model library in evaluation": Plant(
        "calibration/statistics.py", "import torch", "calibration.statistics -> torch"
    ),
    "the command line in an HTTP module": Plant(
        "dispatcher/http/problems.py",
        "from bitladder.cli.main import main",
        "dispatcher.http.problems -> bitladder.cli.main",
    ),
    "an HTTP handler in the command line": Plant(
        "bitladder/cli/ops/keys.py",
        "from dispatcher.state import IntakeState",
        "bitladder.cli.ops.keys -> dispatcher.state",
    ),
    "Redis in a module of routing, which is pure": Plant(
        "bitladder/routing/rates.py", "import redis", "bitladder.routing.rates -> redis"
    ),
    "an engine in the HTTP interface": Plant(
        "dispatcher/metrics/intake_metrics.py",
        "from workers.engines.echo import EchoEngine",
        "dispatcher.metrics.intake_metrics -> workers.engines.echo",
    ),
    "an HTTP server in a worker": Plant("workers/slots.py", "import starlette", "workers.slots -> starlette"),
    "the queue in calibration": Plant(
        "calibration/audit/plots.py",
        "from bitladder.queue.job_queue import JobQueue",
        "calibration.audit.plots -> bitladder.queue.job_queue",
    ),
    "an import upward inside the queue": Plant(
        "bitladder/queue/run_script.py",
        "from bitladder.queue.job_queue import JobQueue",
        "bitladder.queue.run_script -> bitladder.queue.job_queue",
    ),
    "a circle in a folder without layers": Plant(
        "workers/engines/base.py", "import workers.engines.http", ".base -> .http"
    ),
    "tests in the product": Plant("workers/lease.py", "from tests.conftest import ROOT", "workers.lease -> tests"),
}
# Files that take no place in an exhaustive contract.
UNLISTED = (
    "bitladder.unlisted",
    "bitladder.queue.unlisted",
    "dispatcher.unlisted",
    "workers.unlisted",
    "calibration.unlisted",
)


def copy_sources(folder: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken_contracts(folder: Path) -> str:
    """Return what `lint-imports` reports of a tree, without line breaks; nothing where every contract is kept."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert "Contracts" in result.stdout, result.stdout + result.stderr
    return re.sub(r"\s+", " ", result.stdout.partition("Broken contracts")[2])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the report on a copy in which everything is planted."""
    folder = copy_sources(tmp_path_factory.mktemp("planted"))
    for plant in PLANTS.values():
        path = folder / plant.file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{plant.line}\n", encoding="utf-8")
    for module in UNLISTED:
        (folder / f"{module.replace('.', '/')}.py").write_text('"""A file without a place."""\n', encoding="utf-8")
    return broken_contracts(folder)


def test_a_copy_without_plants_keeps_every_contract(tmp_path: Path) -> None:
    assert broken_contracts(copy_sources(tmp_path)) == ""


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_an_import_without_a_place_is_caught(plant: Plant, report: str) -> None:
    assert plant.message in report


@pytest.mark.parametrize("module", UNLISTED)
def test_a_file_without_a_place_is_caught(module: str, report: str) -> None:
    assert f"- {module} (Since this contract is marked as 'exhaustive'" in report
