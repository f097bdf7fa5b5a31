"""Bubblewrap: real CPython with no network, no files but its own library, no processes, and bounds on all it takes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from calibration.sandbox import inside
from calibration.sandbox.overuse import POLL_INTERVAL_S, OveruseMonitor
from calibration.sandbox.program import Judgement, Program
from calibration.sandbox.seccomp import seccomp_filter

# Code that computes meets RLIMIT_CPU, however loaded the machine is; code that waits is ended after this long.
_CPU_S = 5
_WAIT_S = 2.0
# A backstop for what neither ends.
_WALL_S = 60.0
# The set-up lines wait in the pipes until they are read.
_PIPE_BYTES = 2**20
_MAX_CODE_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Judges with two sandboxed interpreters: one has the completion, the other one the checks."""

    wall_s: float = _WALL_S
    cpu_s: int = _CPU_S
    wait_s: float = _WAIT_S
    name: str = field(default="bubblewrap", init=False)

    def judge(self, program: Program) -> Judgement:
        code = program.prompt + program.completion
        if len(code.encode(errors="replace")) > _MAX_CODE_BYTES:
            return Judgement(passed=False, reason="the program is too long")
        with _pipe() as calls, _pipe() as answers:
            calls.send({"code": code, "entry_point": program.entry_point})
            answers.send({"prompt": program.prompt, "test": program.test})
            with (
                _started(
                    self._command("candidate"), stdin=calls.out, stdout=answers.into, stderr=subprocess.DEVNULL
                ) as candidate,
                _started(self._command("judge"), stdin=answers.out, stdout=calls.into, stderr=subprocess.PIPE) as judge,
            ):
                # So that each of the two sees the other one's end.
                calls.close()
                answers.close()
                return self._verdict(judge, OveruseMonitor([candidate.pid, judge.pid], self.wait_s))

    def _verdict(self, judge: subprocess.Popen[bytes], monitor: OveruseMonitor) -> Judgement:
        ends_at_s = time.monotonic() + self.wall_s
        while time.monotonic() < ends_at_s:
            try:
                _, stderr = judge.communicate(timeout=POLL_INTERVAL_S)
            except subprocess.TimeoutExpired:
                if problem := monitor.problem():
                    return Judgement(passed=False, reason=problem)
            else:
                return _read_verdict(stderr, judge.returncode)
        return Judgement(passed=False, reason=f"no end after {self.wall_s:g} s")

    def _command(self, role: str) -> list[str]:
        return [*_python(), Path(inside.__file__).read_text(encoding="utf-8"), role, str(self.cpu_s)]


def find_bubblewrap() -> str | None:
    return shutil.which("bwrap")


def _read_verdict(stderr: bytes, status: int) -> Judgement:
    """Read the last line of the checks; without it they did not pass."""
    try:
        line = json.loads(stderr.splitlines()[-1])
        return Judgement(passed=line["passed"] is True and status == 0, reason=str(line["reason"]))
    except (ValueError, IndexError, TypeError, KeyError):
        return Judgement(passed=False, reason=f"the checks ended with status {status}: {stderr[-200:]!r}")


@contextlib.contextmanager
def _started(
    command: list[str], *, stdin: IO[bytes], stdout: IO[bytes], stderr: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start one of the two; at the end, kill it and with it all that is in its namespaces."""
    with _filter_file() as seccomp:
        process = subprocess.Popen(  # noqa: S603  (the command is ours, the sandbox is the point)
            [*_walls(seccomp), *command], stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=[seccomp], env={}, cwd="/"
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def _walls(seccomp: int) -> list[str]:
    """Return the part of the command line that keeps everything out of reach."""
    program = find_bubblewrap() or "bwrap"
    isolation = ["--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
    ending = ["--die-with-parent", "--new-session"]
    # No /proc, no /tmp, no /home, no /etc; what there is cannot be written.
    files = [*_library_binds(), "--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/", "--chdir", "/"]
    # Sets come in the same order every time, so that an answer that depends on it is right or wrong every time.
    environment = ["--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LC_ALL", "C.UTF-8"]
    return [program, *isolation, *ending, *files, *environment, "--seccomp", str(seccomp), "--"]


def _library_binds() -> list[str]:
    """Show the interpreter with its library, and the system's libraries that it needs."""
    binds = ["--ro-bind", sys.base_prefix, sys.base_prefix]
    for name in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            binds += ["--symlink", str(path.readlink()), name]
        elif path.is_dir() and not path.is_relative_to(sys.base_prefix):
            binds += ["--ro-bind", name, name]
    return binds


def _python() -> list[str]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [str(Path(sys.base_prefix) / "bin" / version), "-s", "-S", "-P", "-B", "-c"]


@contextlib.contextmanager
def _filter_file() -> Iterator[int]:
    program = seccomp_filter()
    assert program  # noqa: S101  (choose.py offers no bubblewrap where there is none)
    number = os.memfd_create("seccomp")
    try:
        os.write(number, program)
        os.lseek(number, 0, os.SEEK_SET)
        yield number
    finally:
        os.close(number)


class _Pipe:
    """Both ends of a pipe; file objects, because closing a number twice may close another thread's file."""

    def __init__(self) -> None:
        out, into = os.pipe()
        self.out, self.into = os.fdopen(out, "rb", buffering=0), os.fdopen(into, "wb", buffering=0)
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def send(self, what: dict[str, str]) -> None:
        self.into.write(json.dumps(what).encode() + b"\n")

    def close(self) -> None:
        self.out.close()
        self.into.close()


@contextlib.contextmanager
def _pipe() -> Iterator[_Pipe]:
    pipe = _Pipe()
    try:
        yield pipe
    finally:
        pipe.close()
