"""Which protocol is spoken at a Redis: who speaks another one is told so, and goes no further."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from bitladder.errors import ConfigError, ProtocolError
from bitladder.producer import Producer
from bitladder.queue.server import protocol
from bitladder.settings.sections import Settings
from tests.conftest import ROOT, Stack, wait_until
from tests.warm_start import BITLADDER

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
LATER = "the processes at this Redis speak protocol 3 and understand 2 and later; this one speaks 1: upgrade it"
COMMANDS = {
    "intake": ("serve",),
    "worker": ("worker", "--tier", "int4"),
    "queues": ("queues",),
    "dead letters": ("dead-letters", "list"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_that_is_too_old_ends_with_one_line_that_says_what_to_do(
    make_stack: Callable[..., Stack], store: redis.Redis, command: str
) -> None:
    store.set(protocol.KEY, "3 2")
    ended = BITLADDER.run("bitladder.cli.main", *COMMANDS[command], env=make_stack().environment)

    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert LATER in line
    assert ended.returncode == 2
    assert store.get(protocol.KEY) == b"3 2"


def test_a_producer_that_is_too_old_queues_nothing(settings: Settings, store: redis.Redis) -> None:
    with Producer(settings) as producer:
        store.set(protocol.KEY, "3 2")
        store.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(ProtocolError, match=LATER):
            producer.submit(BODY)
    with pytest.raises(ConfigError, match=LATER):
        Producer(settings)

    assert store.keys("rq:*") == []


@pytest.mark.parametrize("stored", ["nonsense", "1", "1 1 1", "\xff", "-1 0"])
def test_what_a_later_version_may_write_there_is_not_misread(
    settings: Settings, store: redis.Redis, stored: str
) -> None:
    store.set(protocol.KEY, stored)
    with pytest.raises(ConfigError, match=r"upgrade this process, or .* delete it"):
        Producer(settings)


def test_running_processes_hear_of_it_when_redis_comes_back_and_go_on_when_they_may(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    worker = stack.worker("int4")
    assert store.get(protocol.KEY) == protocol.own().encode()

    store.set(protocol.KEY, "3 2")
    store.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: stack.http.get("/readyz").status_code == 503, "the intake is unready")
    unready, refused = stack.http.get("/readyz").json()["error"], stack.http.post("/v1/jobs", json=BODY)
    assert LATER in unready["message"]
    assert unready["code"] == "protocol_mismatch"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "protocol_mismatch")

    store.set(protocol.KEY, "2 1")  # of a later version beside which this one may work
    wait_until(lambda: stack.http.get("/readyz").status_code == 200, "the intake is ready")
    assert stack.http.post("/v1/completions", json=BODY).status_code == 200
    assert worker.poll() is None
    assert store.get(protocol.KEY) == b"2 1"


class Version:
    """A version of bitladder that speaks another protocol, as far as the constants make it one."""

    def __init__(self, folder: Path, spoken: int, understood_from: int) -> None:
        (folder / "sitecustomize.py").write_text(
            "from bitladder.queue.server import protocol\n"
            f"protocol.SPOKEN, protocol.UNDERSTOOD_FROM = {spoken}, {understood_from}\n",
            encoding="utf-8",
        )
        self.path = f"{folder}{os.pathsep}{ROOT}"


def test_a_rolling_upgrade_raises_the_protocol_and_a_gap_is_refused(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path
) -> None:
    old = make_stack()
    old.intake()
    (tmp_path / "next").mkdir()
    (tmp_path / "far").mkdir()
    new = make_stack(PYTHONPATH=Version(tmp_path / "next", 2, 1).path)
    far = make_stack(PYTHONPATH=Version(tmp_path / "far", 4, 3).path)

    new.intake()
    assert store.get(protocol.KEY) == b"2 1"
    store.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: old.http.get("/readyz").status_code == 200, "the old intake goes on beside it")
    assert far.start("serve").wait(20) == 2

    assert store.get(protocol.KEY) == b"2 1"
