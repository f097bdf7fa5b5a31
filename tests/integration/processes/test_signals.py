"""Signals that end a process: at any time from its first lines on, and SIGHUP as SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from bitladder.client import Client
from bitladder.producer import Producer
from tests.conftest import ROOT, OwnValkey, Stack, free_port, make_settings, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
SERVERS = {"serve": ["serve"], "worker": ["worker", "--tier", "int4"], "up": ["up", "--engine", "echo"]}
# Loaded early by each of them, and long before any of them is ready.
LIBRARY = "msgspec"


class Process:
    """One of our commands, whatever it writes, and all that it starts."""

    def __init__(self, folder: Path, arguments: list[str], **environment: str) -> None:
        self.port, redis_port, self.log = free_port(), free_port(), folder / "log"
        self.mark = f"BITLADDER_REDIS__URL=redis://127.0.0.1:{redis_port}/0"
        ours = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
            "BITLADDER_REDIS__DATA_DIR": str(folder / "valkey"),
            "BITLADDER_INTAKE__PORT": str(self.port),
            "BITLADDER_WORKER__ENGINE": "echo",
            "BITLADDER_PUBLISH__FILE": "",
            **dict([self.mark.split("=", 1)]),
            **environment,
        }
        command = [sys.executable, "-m", "bitladder.cli.main", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=ours, cwd=ROOT, stdout=log, stderr=log)

    def is_loading(self) -> bool:
        """Return whether it is importing, as the program that it is to be: a command may become another one."""
        command = self._read("cmdline")
        is_itself = b"bitladder.cli.main" in command and b"worker" not in command
        return (is_itself or b"workers" in command) and LIBRARY.encode() in self._read("maps")

    def hears(self) -> bool:
        """Return whether SIGTERM has a handler."""
        caught = next(line for line in self._read("status").splitlines() if line.startswith(b"SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def left(self) -> list[str]:
        """Return what still runs of all that it has started."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has ended, or is nobody's business
        return found

    def _read(self, name: str) -> bytes:
        return Path(f"/proc/{self.process.pid}/{name}").read_bytes()


@contextmanager
def started(folder: Path, arguments: list[str], **environment: str) -> Iterator[Process]:
    """Start a command, and leave nothing of it."""
    one = Process(folder, arguments, **environment)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
        one.process.wait(60)
        wait_until(lambda: one.left() == [], "nothing of it is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_process_that_is_told_to_end_while_it_loads_ends_well(
    tmp_path: Path, name: str, number: signal.Signals
) -> None:
    with started(tmp_path, SERVERS[name]) as one:
        wait_until(one.is_loading, "it loads")
        one.process.send_signal(number)

        assert one.process.wait(20) == 0
    assert b"Traceback" not in one.log.read_bytes()


@pytest.mark.parametrize("name", SERVERS)
def test_a_process_can_be_told_to_end_at_any_time_of_its_start(tmp_path: Path, name: str) -> None:
    for number, delay_s in enumerate((0.0, 0.3, 0.7, 1.2, 2.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with started(folder, SERVERS[name]) as one:
            wait_until(one.hears, "it has a handler")
            time.sleep(delay_s)  # any moment will do: that there is none at which it ends badly is what is tried
            one.process.terminate()

            assert one.process.wait(40) == 0, f"after {delay_s:g} s:\n{one.log.read_text()}"
        assert b"Traceback" not in one.log.read_bytes()


def test_a_worker_whose_terminal_ends_hands_its_jobs_on_uncharged(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_WORKER__DRAIN_GRACE_S="0.3")
    stack.intake()
    leaving = stack.worker("int4")
    with Client(stack.url) as client:
        job_id = client.submit(BODY | {"max_tokens": 600})["id"]
        wait_until(lambda: store.hget(f"rq:job:{job_id}", "status") == b"started", "it runs")
        leaving.send_signal(signal.SIGHUP)
        status = leaving.wait(20)
        attempts = client.result(job_id)["attempts"]
        stack.worker("int4")
        done = client.wait(job_id, timeout_s=20)

    assert (status, attempts) == (0, 0)
    assert (done["status"], done["attempts"]) == ("finished", 1)


def test_an_intake_whose_terminal_ends_answers_what_it_has_begun(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    intake = stack.start("serve")
    wait_until(stack._is_up, "the intake answers")
    stack.start("worker", "--tier", "int4")
    with stack.http.stream("POST", "/v1/completions", json=BODY | {"max_tokens": 100, "stream": True}) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        intake.send_signal(signal.SIGHUP)
        rest = [line for line in lines if line]

    assert intake.wait(20) == 0
    assert first.startswith("data: ")
    assert rest[-1] == "data: [DONE]"


def test_a_worker_that_was_started_to_ignore_the_end_of_its_terminal_does(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup(1) does; children inherit it
    try:
        worker = stack.worker("int4")
    finally:
        signal.signal(signal.SIGHUP, before)

    worker.send_signal(signal.SIGHUP)
    with Client(stack.url) as client:
        done = client.wait(client.submit(BODY)["id"], timeout_s=10)
    worker.terminate()

    assert done["status"] == "finished"
    assert worker.wait(20) == 0


def test_a_stack_whose_terminal_ends_hands_its_jobs_to_redis_before_redis_ends(tmp_path: Path) -> None:
    with started(tmp_path, SERVERS["up"], BITLADDER_WORKER__DRAIN_GRACE_S="6") as one:
        with Client(f"http://127.0.0.1:{one.port}") as client:
            wait_until(lambda: _is_answered(client), "a job is answered", 40)
            short, long = (
                client.submit(BODY | {"max_tokens": tokens}, max_tier="int4")["id"] for tokens in (1100, 20_000)
            )
            wait_until(lambda: client.result(long)["status"] == "running", "both run")
        one.process.send_signal(signal.SIGHUP)
        status = one.process.wait(60)

    valkey = OwnValkey(tmp_path / "valkey")
    valkey.start()
    try:
        with Producer(make_settings(valkey.url)) as producer:
            outcome = producer.outcome(short)
        store = redis.Redis.from_url(valkey.url)
        fields = store.hmget(f"rq:job:{long}", "status", "fence", "uncharged")
        held = store.keys("bl:inflight:*") + store.keys("rq:wip:*")
        store.close()
    finally:
        valkey.kill()
    assert status == 0
    assert outcome
    assert (outcome.state, outcome.attempts) == ("finished", 1)
    assert fields[0] == b"queued"
    assert fields[1] == fields[2]
    assert held == []


def _is_answered(client: Client) -> bool:
    try:
        return bool(client.wait(client.submit(BODY)["id"], timeout_s=5)["status"] == "finished")
    except Exception:
        return False
