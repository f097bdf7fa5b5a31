"""Completions that mean harm: none of them passes, none of them reaches anything, none of them outlives its verdict."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.sandbox.bubblewrap import Bubblewrap, find_bubblewrap
from calibration.sandbox.monty import MontySandbox
from calibration.sandbox.program import Judgement, Program, Sandbox

PROMPT = 'def double(x):\n    """Return twice x."""\n'
RIGHT = "    return 2 * x\n"
CHECKS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate('ab') == 'abab'\n"

# What it tries, and lines at the top of a module that otherwise answers rightly.
TRICKS = {
    "endless loop": "while True:\n    pass",
    "loop that catches everything": "while True:\n    try:\n        while 1: pass\n    except BaseException: pass",
    "memory bomb": "hoard = []\nwhile True:\n    hoard.append('x' * 10**7)",
    "memory bomb by number": "x = 7 ** (10 ** 9)",
    "recursion": "def f(): return f()\nf()",
    "endless output": "while True:\n    print('x' * 10**6)",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "thread": "import threading\nthreading.Thread(target=print).start()",
    "other program": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "passwords": "open('/etc/passwd').read()",
    "shared memory": "import mmap\nopen('/dev/shm/x', 'wb').write(b'x' * 10)",
    "write to root": "open('/x', 'w').write('x')",
    "write to tmp": "open('/tmp/x', 'w').write('x')",
    "write to dev": "open('/dev/x', 'w').write('x')",
    "own mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/dev', b'tmpfs', 0, None) == 0",
    "own namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "memory file": "import os\nos.memfd_create('x')",
    "old system calls": "import ctypes\nassert ctypes.CDLL(None).syscall(57 | 0x40000000) >= 0",
    "more time": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "exit by exception": "raise SystemExit(0)",
    "keyboard": "raise KeyboardInterrupt",
    "broken syntax": "def (:",
}
# Module-level code after which the function answers wrongly, but tries to be taken for right.
FAKES = {
    "an object that equals everything": "class Yes:\n    def __eq__(self, other): return True\n"
    "def double(x): return Yes()",
    "a string that equals everything": "class Yes(str):\n    def __eq__(self, other): return True\n"
    "def double(x): return Yes('?')",
    "an own check": "def check(candidate): pass\ndef double(x): return 0",
    "no assertions": "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\ndef double(x): return 0",
    "a verdict on every descriptor": "import os\n"
    "for n in range(32):\n"
    '    try: os.write(n, b\'{"passed": true, "reason": ""}\\n\')\n'
    "    except OSError: pass\n"
    "def double(x): return 0",
    "answers before questions": "import os\n"
    "for n in range(3, 32):\n"
    "    try: os.write(n, b'{\"value\": 0}\\n' * 9)\n"
    "    except OSError: pass\n"
    "def double(x): return 0",
    "an answer without end": "def double(x): return 'x' * (2 ** 21)",
    "the checks by traceback": "import sys\n"
    "def double(x):\n"
    "    frame = sys._getframe()\n"
    "    while frame: frame.f_locals.clear(); frame = frame.f_back\n"
    "    return 0",
}


@pytest.fixture(scope="module", params=["bubblewrap", "monty"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return MontySandbox(feed_s=0.5) if request.param == "monty" else _bubblewrap()


def _bubblewrap() -> Bubblewrap:
    if find_bubblewrap() is None:
        pytest.skip("there is no bwrap: apt-get install bubblewrap")
    return Bubblewrap(wall_s=20, cpu_s=1)


def judge(sandbox: Sandbox, extra: str = "", answer: str = RIGHT) -> Judgement:
    """Judge a right answer with something added behind it."""
    return sandbox.judge(Program(prompt=PROMPT, completion=f"{answer}\n{extra}\n", test=CHECKS, entry_point="double"))


def test_a_right_answer_passes_and_a_wrong_one_does_not(sandbox: Sandbox) -> None:
    assert judge(sandbox) == Judgement(passed=True)
    assert not judge(sandbox, answer="    return x\n").passed


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_ends_in_a_failure_with_a_reason(sandbox: Sandbox, trick: str) -> None:
    started_s = time.monotonic()

    verdict = judge(sandbox, TRICKS[trick])

    assert not verdict.passed
    assert verdict.reason
    assert time.monotonic() - started_s < 25


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        ("fork bomb", "PermissionError"),
        ("other program", "PermissionError"),
        ("memory file", "PermissionError"),
        ("memory bomb", "MemoryError"),
        ("passwords", "FileNotFoundError"),
        ("write to root", "OSError"),  # read-only file system
        ("exit", "SystemExit"),
        ("endless loop", "the program ended or was ended"),
    ],
)
def test_each_wall_of_bubblewrap_is_the_one_that_stops_it(trick: str, reason: str) -> None:
    # A second of processor time is for what ends by that alone: on a busy machine, memory is given out slowly.
    sandbox = replace(_bubblewrap(), cpu_s=1 if trick == "endless loop" else 15)

    assert judge(sandbox, TRICKS[trick]).reason == reason


def test_waiting_ends_too() -> None:
    slow_judge = replace(_bubblewrap(), wall_s=1)

    assert judge(slow_judge, "import time\ntime.sleep(1000)").reason == "no end after 1 s"


@pytest.mark.parametrize("fake", FAKES)
def test_a_wrong_answer_cannot_be_taken_for_a_right_one(sandbox: Sandbox, fake: str) -> None:
    verdict = judge(sandbox, FAKES[fake])

    assert not verdict.passed
    assert verdict.reason


def test_files_of_the_user_are_out_of_sight_and_stay_as_they_are(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")

    for extra in (
        f"open({str(secret)!r}).read()",
        f"open({str(secret)!r}, 'w').write('x')",
        f"import os\nassert os.path.exists({str(Path.home())!r}) and os.listdir({str(tmp_path)!r})",
        f"import os\nos.symlink('/', {str(tmp_path / 'link')!r})",
    ):
        assert not judge(sandbox, extra).passed

    assert secret.read_text() == "secret"
    assert list(tmp_path.iterdir()) == [secret]


def test_the_network_is_out_of_reach(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]

        verdict = judge(sandbox, f"import socket\nsocket.create_connection(('127.0.0.1', {port}))")

        assert not verdict.passed
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_environment_is_empty(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")

    assert not judge(sandbox, "import os\nassert os.environ['A_SECRET']").passed


def test_other_processes_cannot_be_killed_or_seen(sandbox: Sandbox) -> None:
    kills = "import os, signal\n" + "\n".join(
        f"try: os.kill({pid}, signal.SIGKILL)\nexcept Exception: pass" for pid in (os.getppid(), os.getpid())
    )
    killing_all = "import os\nos.kill(-1, 9)"
    killing_the_parent = "import os\nos.kill(os.getppid(), 9)\nassert os.getppid() > 1"

    judge(sandbox, kills)  # this process is still here to see it
    assert not judge(sandbox, killing_all).passed
    assert not judge(sandbox, killing_the_parent).passed
    assert not judge(sandbox, f"import os\nos.kill({os.getpid()}, 0)").passed


def test_nothing_outlives_its_verdict(sandbox: Sandbox) -> None:
    before = _descendants()

    judge(sandbox, TRICKS["fork bomb"])
    judge(sandbox, TRICKS["endless loop"])

    assert _descendants() <= before


def _descendants() -> set[int]:
    """Return the ids of this process's children and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
