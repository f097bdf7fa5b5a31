"""Run `python -m MODULE` as a fork of a process that has loaded the libraries.

Nearly all of a start's 0.7 s of CPU is imports, and the tests start a thousand processes. What is forked is a process
like any other: its own pid, environment, output and exit status, and the module runs from its first line. That it also
runs in an interpreter of its own is shown by the tests that start `bitladder up` and each command once.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parent.parent
_MAX_REQUEST = 100_000


class WarmProcess:
    """A process that was started warm, with what tests use of subprocess.Popen."""

    def __init__(self, pid: int, answers: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._answers = answers  # its exit status, when it has ended

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, or minus the signal's number.

        Raises:
            subprocess.TimeoutExpired: it still runs.

        """
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = int(self._answers.recv(16))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"warm process {self.pid}", timeout or 0) from None
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmStarts:
    """A process that has loaded some modules, to be forked. It starts with its first use and ends with the tests."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._requests: socket.socket | None = None

    def start(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str],
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> WarmProcess:
        """Start `python -m module` with these arguments; without an output it writes where this process does."""
        if self._requests is None:
            self._requests = self._forking()
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outputs = [stdout.fileno() if stdout else 1, stderr.fileno() if stderr else 2]
        ignored = [number for number in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(number) is signal.SIG_IGN]
        request = json.dumps([module, arguments, dict(env), ignored]).encode()
        assert len(request) < _MAX_REQUEST
        socket.send_fds(self._requests, [request], [theirs.fileno(), *outputs])
        theirs.close()
        pid = answers.recv(16)
        assert pid, f"the process that is forked for {module} has ended"
        return WarmProcess(int(pid), answers)

    def run(
        self, module: str, *arguments: str, env: Mapping[str, str], timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m module` to its end, which must come in time."""
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = self.start(module, *arguments, env=env, stdout=stdout, stderr=stderr)
            try:
                process.wait(timeout)
            finally:
                process.kill()
            texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in (stdout, stderr)]
        return subprocess.CompletedProcess([module, *arguments], process.wait(), *texts)

    def _forking(self) -> socket.socket:
        requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.warm_start", str(theirs.fileno()), *self._modules]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(_ROOT)}
        server = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment, cwd=_ROOT
        )
        theirs.close()

        @atexit.register
        def stop() -> None:
            requests.close()
            server.wait()

        return requests


BITLADDER = WarmStarts(
    "bitladder.cli.commands",
    *(
        f"bitladder.cli.{name}"
        for name in ("job_commands", "ops.dead_letter_commands", "ops.inspection", "ops.keys", "serve")
    ),
    "bitladder.cli.ops.doctor.doctor_command",
    "bitladder.cli.ops.loadtest.loadtest_command",
    "workers.run",
)
CALIBRATION = WarmStarts(*(f"calibration.commands.{name}" for name in ("inspect", "publish", "quantize", "releases")))


def _serve(requests: socket.socket, modules: list[str]) -> Callable[[], object]:
    """Fork for each request until the tests end; return, in a fork, what it is to run."""
    for name in modules:
        import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who are forked
    gc.freeze()  # a full collection in a fork would copy all that they share
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            sys.exit()
        if os.fork() == 0:
            requests.close()
            module, arguments, environment, ignored = json.loads(request)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
            return _become(module, arguments, environment, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(
    module: str, arguments: list[str], environment: dict[str, str], descriptors: list[int]
) -> Callable[[], object]:
    """Return what a child with this command line, environment and output runs; its parent passes its end on."""
    answers = socket.socket(fileno=descriptors[0])
    pid = os.fork()
    if pid:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        answers.send(b"%d" % pid)
        answers.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    answers.close()
    for number, descriptor in enumerate(descriptors[1:], start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    return lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])()
