"""deploy/systemd and the CronJobs: scheduled steps of the control loop, with commands that exist and no secrets."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
CRON_JOBS = {
    resource["metadata"]["name"]: resource
    for path in (ROOT / "deploy" / "kubernetes").rglob("*.yaml")
    for resource in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    if resource["kind"] == "CronJob"
}


def read(path: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(strict=False, inline_comment_prefixes=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text(encoding="utf-8"))
    return unit


def check_command(words: list[str]) -> None:
    """Check that the step has these options, and that none of them is a secret."""
    step, options = words[2], [word for word in words if word.startswith("--")]
    done = subprocess.run(
        [sys.executable, "-m", "calibration", step, "--help"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )

    assert words[1] == "calibrate"
    assert done.returncode == 0, done.stderr
    assert [option for option in options if option not in done.stdout] == []
    assert "--api-key" not in options


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_unit_runs_a_step_once_and_has_a_timer(path: Path) -> None:
    service = read(path)["Service"]
    timer = read(path.with_suffix(".timer"))["Timer"]

    check_command(shlex.split(re.sub(r"\\\s", "", service["ExecStart"])))
    assert service["Type"] == "oneshot"
    assert "OnUnitInactiveSec" in timer
    assert service["EnvironmentFile"].startswith("-/etc/bitladder/")


@pytest.mark.parametrize("name", CRON_JOBS)
def test_a_cron_job_runs_a_step_never_twice_at_once_with_its_key_from_a_secret(name: str) -> None:
    spec: dict[str, Any] = CRON_JOBS[name]["spec"]
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry for entry in container["env"]}

    check_command([*container["command"], *container["args"]])
    assert spec["concurrencyPolicy"] == "Forbid"
    assert "secretKeyRef" in environment["BITLADDER_API_KEY"]["valueFrom"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8").replace("/opt/bitladder/.venv/bin/bitladder", sys.executable)
        (tmp_path / path.name).write_text(text, encoding="utf-8")

    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60)

    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []
