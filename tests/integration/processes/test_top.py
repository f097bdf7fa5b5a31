"""`bitladder top` beside a running stack: a screen in a real terminal, a table elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest

from tests.conftest import Process, Stack, wait_until
from tests.warm_start import BITLADDER

COMMAND = [sys.executable, "-m", "bitladder.cli.main", "top"]
_ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|[()][A-Z0-9]|[=>])")


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, stack: Stack, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=stack.environment | {"TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._text = ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def shows(self, text: str) -> bool:
        """Return whether this was written since the last time that something was found."""
        while select.select([self._ours], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # it has ended
                self._text += os.read(self._ours, 65_536).decode(errors="replace")
                continue
            break
        is_there = text in _ESCAPES.sub("", self._text)
        if is_there:
            self._text = ""
        return is_there


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    stack.worker("int8")
    return stack


def end(process: Process) -> None:
    process.kill()
    process.wait()


def test_the_screen_shows_what_happens_says_when_no_intake_answers_and_comes_back(stack: Stack) -> None:
    terminal = Terminal(stack, "--url", stack.url)
    with contextlib.closing(terminal):
        wait_until(lambda: terminal.shows("fp8: no live worker"), "it shows the tiers and what to look at")
        terminal.press("s")
        wait_until(lambda: terminal.shows("sorted by depth"), "it sorts")
        end(stack.processes[0])
        wait_until(lambda: terminal.shows("cannot reach the intake at"), "it says that no intake answers")
        stack.intake()
        stack.worker("fp8")
        wait_until(lambda: terminal.shows("int4: no live worker"), "it shows what has changed meanwhile")
        terminal.press("p")
        wait_until(lambda: terminal.shows("y: yes"), "it asks before it pauses a tier")
        terminal.press("y")
        wait_until(lambda: bool(stack.http.get("/v1/ops/pauses").json()["data"]), "the tier is paused")
        wait_until(lambda: terminal.shows("paused by"), "it shows the pause")
        terminal.press("q")

        assert terminal.process.wait(20) == 0


def test_without_a_terminal_it_prints_a_table_from_either_side_and_what_is_wrong(stack: Stack) -> None:
    for side in ((), ("--url", stack.url)):
        done = BITLADDER.run("bitladder.cli.main", "top", *side, env=stack.environment)

        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert (done.returncode, len(rows)) == (0, 4)
        assert rows[0][:4] == ["model", "tier", "state", "depth"]
        assert [row[1:3] for row in rows[1:]] == [["fp8", "no worker"], ["int8", "ok"], ["int4", "no worker"]]
        assert "critical: smollm2 fp8: no live worker; jobs that need it will wait" in done.stderr


def test_what_cannot_be_shown_is_an_error_with_the_status_of_its_kind(stack: Stack) -> None:
    for arguments, status, words in (
        (("--model", "gpt-5"), 3, "model must be one of smollm2, got 'gpt-5'"),
        (("--url", "http://127.0.0.1:9"), 5, "cannot reach the intake at http://127.0.0.1:9/"),
        (("--sort", "age"), 2, "'age' is not one of"),
    ):
        done = BITLADDER.run("bitladder.cli.main", "top", *arguments, env=stack.environment)

        assert (done.returncode, done.stdout) == (status, "")
        assert words in done.stderr


def test_while_it_watches_each_sample_is_a_line_of_json(stack: Stack) -> None:
    arguments = [*COMMAND, "--watch", "--json", "--url", stack.url]
    with subprocess.Popen(arguments, env=stack.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        samples = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.kill()

    assert samples[0]["at"] < samples[1]["at"]
    assert samples[1]["models"][0]["tiers"][1]["breaker"] == "closed"
