"""What tests start warm is what a user starts: the same output and status, and nothing of the tests' environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, OwnValkey, wait_until
from tests.warm_start import BITLADDER

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.environ.get("HOME", "/"),
    "PYTHONPATH": str(ROOT),
    "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
}


@pytest.mark.parametrize(
    "command", [("config", "show"), ("queues", "--url", "http://127.0.0.1:1"), ("serve", "--port", "x"), ("--help",)]
)
def test_a_command_says_the_same_and_ends_the_same(command: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "bitladder.cli.main", *command]
    cold = subprocess.run(words, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    warm = BITLADDER.run("bitladder.cli.main", *command, env=ENVIRONMENT)

    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def test_a_process_has_a_pid_an_environment_and_an_end_of_its_own(own_valkey: OwnValkey, tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"BITLADDER_REDIS__URL": own_valkey.url, "BITLADDER_WORKER__ENGINE": "echo"}
    log = tmp_path / "log"
    with log.open("wb") as output:
        first, second = (
            BITLADDER.start("workers", "--tier", tier, env=environment, stdout=output, stderr=output)
            for tier in ("int4", "int8")
        )
    wait_until(lambda: log.read_text().count('"worker ready"') == 2, "both are ready")

    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.01)
    first.send_signal(signal.SIGTERM)
    second.kill()

    assert first.pid != second.pid
    assert (first.wait(10), second.wait(10)) == (0, -signal.SIGKILL)
    assert (first.poll(), second.poll()) == (0, -signal.SIGKILL)
    assert not os.environ.keys() & {"BITLADDER_WORKER__ENGINE"}
