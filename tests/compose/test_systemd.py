"""compose/systemd: units that systemd takes, with commands that exist and time to end in order."""

from __future__ import annotations

import configparser
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bitladder.cli.output import ExitCode
from bitladder.cli.serving import END_S
from tests.conftest import ROOT, Stack, make_settings

UNITS = ROOT / "compose" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))


def read(path: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(strict=False, inline_comment_prefixes=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text(encoding="utf-8"))
    return unit


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_unit_starts_a_command_with_options_that_it_has(path: Path) -> None:
    command = shlex.split(read(path)["Service"]["ExecStart"])
    name, options = command[1], [word for word in command if word.startswith("--")]

    done = subprocess.run(
        [sys.executable, "-m", "bitladder.cli.main", name, "--help"], capture_output=True, text=True, timeout=60
    )

    assert command[0] == "/opt/bitladder/.venv/bin/bitladder"
    assert done.returncode == 0, done.stderr
    assert [option for option in options if option not in done.stdout] == []


def test_a_unit_leaves_the_time_that_an_end_in_order_takes() -> None:
    settings = make_settings("redis://127.0.0.1:1/0")
    need_s = {
        "bitladder-intake@.service": settings.intake.lame_duck_s + settings.intake.drain_grace_s,
        "bitladder-worker@.service": settings.worker.drain_grace_s + settings.queue.lease_s + END_S,
    }

    assert sorted(need_s) == [path.name for path in SERVICES]
    for path in SERVICES:
        assert int(read(path)["Service"]["TimeoutStopSec"]) > need_s[path.name]


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_unit_is_started_again_for_ever_unless_its_configuration_is_refused(path: Path) -> None:
    unit = read(path)

    assert (unit["Unit"]["StartLimitIntervalSec"], unit["Service"]["Restart"]) == ("0", "always")
    assert int(unit["Service"]["RestartPreventExitStatus"]) == ExitCode.WRONG_USE
    assert {"redis-server.service", "valkey-server.service"} <= set(unit["Unit"]["After"].split())


def test_an_intake_tells_systemd_when_it_serves(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    assert read(UNITS / "bitladder-intake@.service")["Service"]["Type"] == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        stack = make_stack(NOTIFY_SOCKET=str(tmp_path / "notify"))
        stack.start("serve")

        assert manager.recv(100) == b"READY=1"
        assert stack.http.get("/health").status_code == 200


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        instance = path.name.replace("@.", "@int4." if "worker" in path.name else "@8000.")
        text = path.read_text(encoding="utf-8").replace("/opt/bitladder/.venv/bin/bitladder", sys.executable)
        (tmp_path / instance).write_text(text, encoding="utf-8")

    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60)

    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []
