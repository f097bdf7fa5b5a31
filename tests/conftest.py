"""A real Valkey per session, empty for every test, and the whole stack as processes."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx2
import hypothesis
import pytest
import redis

from bitladder.queue.server.embedded import is_answering, server_command
from bitladder.settings.load import load_settings
from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.sections import Settings
from tests.warm_start import BITLADDER, WarmProcess

ROOT = Path(__file__).parent.parent
Process = subprocess.Popen[bytes] | WarmProcess
# An example's time is the machine's, which other tests share.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
# Tests are compiled once and kept, also where the environment says that Python writes no bytecode: their asserts are
# rewritten, which takes each process of a run 8 s of CPU.
sys.dont_write_bytecode = False
# Under nohup, or as a shell's background job, this process ignores these signals, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool], description: str, timeout_s: float = 20) -> None:
    """Wait for a condition; fail with its description."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not in {timeout_s:g} s: {description}"
        time.sleep(0.02)


# Side by side, each of pytest's processes has ports of its own, below those that the system gives to connections: what
# was free is not another's by the time that a server binds it.
_FIRST_PORT, _PORTS_EACH = 12_000, 2_500
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_COUNTED = itertools.count(os.getpid())


def echo_tokens(count: int) -> list[str]:
    """Return the echo engine's tokens for the prompt `w0 w1 w2 …`: each with the space before it."""
    return [f"{' ' * bool(number)}w{number}" for number in range(count)]


def free_port() -> int:
    for number in _COUNTED:
        port = _FIRST_PORT + _PROCESS * _PORTS_EACH + number % _PORTS_EACH
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("itertools.count has no end")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(tmp_path_factory.mktemp("valkey")))
    process = subprocess.Popen(server_command(settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: is_answering(settings), "Valkey answers")
    yield settings.url
    process.kill()
    process.wait()


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def settings(redis_url: str, store: redis.Redis) -> Settings:
    return make_settings(redis_url)


def make_settings(redis_url: str, **flags: Any) -> Settings:  # noqa: ANN401  (any setting)
    """Return the example's settings on the test's server; `a__b` means a.b."""
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(
        str(ROOT / "bitladder.toml"),
        environ={},
        flags={"redis.url": redis_url, "worker.engine": "echo", "publish.file": "", **dotted},
    ).settings


class OwnValkey:
    """A Valkey of one test, which may kill it and start it again on what it has written to disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder))
        self.url = self.settings.url
        self.port = int(self.url.rpartition(":")[2].split("/")[0])
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*server_command(self.settings), "--appendfsync", "always", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: is_answering(self.settings), "Valkey answers")

    def send(self, signal_number: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal_number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    valkey = OwnValkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.kill()


# Where intakes keep files whose test names no other place: not beside the example's configuration.
_FILES = Path(tempfile.gettempdir()) / f"bitladder-tests-{os.getpid()}"
atexit.register(shutil.rmtree, _FILES, ignore_errors=True)


class Stack:
    """Processes of one test, with their settings in the environment."""

    def __init__(self, redis_url: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(ROOT),
            "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
            "BITLADDER_REDIS__URL": redis_url,
            "BITLADDER_WORKER__ENGINE": "echo",
            "BITLADDER_AUTH__KEYS_FILE": "",
            "BITLADDER_FILES__STORE": str(_FILES),
            "BITLADDER_PUBLISH__FILE": "",  # tests do not take a release that was published from this folder
            "BITLADDER_INTAKE__PORT": str(self.port),
            "BITLADDER_INTAKE__LAME_DUCK_S": "0",  # tests have no other intake
            **environment,
        }
        self.output: IO[bytes] | None = None  # where the processes write; None: where the tests do
        self.processes: list[Process] = []
        # Over loopback there is no TLS: to load the system's certificates would take 22 ms.
        self.http = httpx2.Client(base_url=self.url, timeout=60, verify=False)

    def start(self, *arguments: str) -> Process:
        is_warm = self.environment["PYTHONPATH"] == str(ROOT)  # another begins with its interpreter
        outputs: dict[str, Any] = {"env": self.environment, "stdout": self.output, "stderr": self.output}
        if is_warm and arguments[0] == "worker":  # the command becomes this module, in a new interpreter
            process: Process = BITLADDER.start("workers", *arguments[1:], **outputs)
        elif is_warm and arguments[0] == "serve":
            process = BITLADDER.start("bitladder.cli.main", *arguments, **outputs)
        else:
            process = subprocess.Popen([sys.executable, "-m", "bitladder.cli.main", *arguments], cwd=ROOT, **outputs)
        self.processes.append(process)
        return process

    def intake(self) -> None:
        self.start("serve")
        wait_until(self._is_up, "the intake answers")

    def worker(self, tier: str) -> Process:
        before = self.live(tier)
        process = self.start("worker", "--tier", tier)
        wait_until(lambda: self.live(tier) == before + 1, f"a worker of {tier} is live")
        return process

    def live(self, tier: str) -> int:
        answer = self.http.get("/v1/queues")
        while answer.status_code == 503:  # a busy machine's Redis may take longer than the intake waits
            answer = self.http.get("/v1/queues")
        tiers = answer.raise_for_status().json()["data"][0]["tiers"]
        return int(next(entry["live_workers"] for entry in tiers if entry["tier"] == tier))

    def kill(self) -> None:
        """End all at once: a drain takes a second in which a test that is over only waits."""
        for process in self.processes:
            if isinstance(process, WarmProcess):
                process.kill()
        self.stop()

    def stop(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.http.close()

    def _is_up(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return self.http.get("/readyz").status_code == 200
        return False


@pytest.fixture
def make_stack(redis_url: str, store: redis.Redis) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(**environment: str) -> Stack:
        stacks.append(Stack(redis_url, **environment))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.kill()


# Tests that mostly wait for processes: run beside those that compute, they cost no time of their own.
WAITING = (ROOT / "tests" / "chaos", ROOT / "tests" / "integration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that wait, the others behind them: side by side, the last file to end is a short one."""
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    assert not unstable, f"processes side by side need the same names of tests, these have an address: {unstable}"
    waiting = {path for path in {item.path for item in items} if any(folder in path.parents for folder in WAITING)}
    items.sort(key=lambda item: item.path not in waiting)
