"""bitladder/cli/supervisor.py on processes that do what ours should not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_until

# Signals are held back from what is started until it takes them.
_SLEEP = "import time; from bitladder.process.signals import end_at_once; end_at_once(); time.sleep(300)"
LASTING = f'{sys.executable} -c "{_SLEEP}"'
STUBBORN = """sh -c 'trap "" TERM; while :; do sleep 0.1; done'"""


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, log: Path, commands: dict[str, str], grace_s: float) -> None:
        code = "import os, sys; from bitladder.cli.supervisor import Supervisor; "
        code += f"sys.exit(Supervisor({list(commands.items())!r}, os.environ, {grace_s}).run())"
        self._log = log
        with log.open("wb") as output:
            environment = os.environ | {"PYTHONIOENCODING": "ascii"}  # as on a terminal of old
            self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=output, stderr=output)

    def said(self) -> list[str]:
        return [line.partition("| ")[2] for line in self._log.read_text(encoding="utf-8").splitlines()]

    def wait_until_said(self, line: str) -> None:
        wait_until(lambda: line in self.said(), line)


@contextmanager
def supervised(folder: Path, grace_s: float = 20, **commands: str) -> Iterator[Supervised]:
    stack = Supervised(folder / "log", {"redis": LASTING, "web": LASTING, **commands}, grace_s)
    try:
        yield stack
    finally:
        stack.process.kill()
        stack.process.wait()


def test_a_process_that_keeps_dying_is_started_again_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    with supervised(tmp_path, worker_a="false", worker_b="true") as stack:
        stack.wait_until_said("worker_b ended with status 0; it is started again in 0.5 s")  # it was drained
        for pause in ("0.5", "1", "2"):
            stack.wait_until_said(f"worker_a ended with status 1; it is started again in {pause} s")


def test_a_process_whose_configuration_is_refused_is_not_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    with supervised(tmp_path, worker_a="sh -c 'exit 2'", worker_b="sh -c 'sleep 0.3; exit 1'") as stack:
        stack.wait_until_said("worker_a ended with status 2: its last line says what it lacks; it is not started again")
        stack.wait_until_said("worker_b ended with status 1; it is started again in 1 s")
        starts = [line for line in stack.said() if line.startswith("worker_a started")]

    assert len(starts) == 1


def test_a_stack_without_a_worker_that_can_start_ends_with_its_status(tmp_path: Path) -> None:
    with supervised(tmp_path, worker_a="sh -c 'exit 2'") as stack:
        assert stack.process.wait(20) == 2

    assert "there is no stack without a worker: the others end" in stack.said()
    assert [line.split()[0] for line in stack.said() if " ended with status 0" in line] == ["web", "redis"]


def test_what_has_not_ended_in_its_grace_is_killed_and_redis_still_ends_last(tmp_path: Path) -> None:
    with supervised(tmp_path, grace_s=1, worker_a=STUBBORN) as stack:
        wait_until(lambda: len(stack.said()) == 3, "all have started")
        stack.process.send_signal(signal.SIGINT)
        status = stack.process.wait(20)

    assert status == 128 + signal.SIGKILL
    assert stack.said()[-4:] == [
        "web ended with status 0",
        "killed, because not ended in 1 s: worker_a",
        "worker_a was ended by SIGKILL",
        "redis ended with status 0",
    ]


def test_a_third_signal_kills_what_the_second_could_not_hurry(tmp_path: Path) -> None:
    with supervised(tmp_path, worker_a=STUBBORN) as stack:
        wait_until(lambda: len(stack.said()) == 3, "all have started")
        for line in ("SIGTERM: first the intake ends", "SIGTERM again:", "worker_a was ended by SIGKILL"):
            stack.process.terminate()
            wait_until(lambda line=line: any(said.startswith(line) for said in stack.said()), line)  # type: ignore[misc]
        stack.process.wait(20)

    assert stack.said()[-1] == "redis ended with status 0"


def test_an_end_is_seen_although_a_child_of_the_process_holds_its_pipe(tmp_path: Path) -> None:
    with supervised(tmp_path, worker_a="sh -c 'sleep 30 & exit 3'") as stack:
        stack.wait_until_said("worker_a ended with status 3; it is started again in 0.5 s")


def test_what_the_terminal_cannot_show_holds_nobody_up(tmp_path: Path) -> None:
    """A pipe that nobody reads any more would stop its process."""
    loud = """sh -c 'yes café | head -c 300000; yes ja | tr -d "\\n" | head -c 300000; exit 3'"""
    with supervised(tmp_path, worker_a=loud) as stack:
        stack.wait_until_said("worker_a ended with status 3; it is started again in 0.5 s")
