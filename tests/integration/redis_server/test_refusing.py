"""A Redis that can never serve ends each process with one line; one that refuses later turns readiness off."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.embedded import server_command
from bitladder.queue.server.refusals import CLUSTER, refusal_of
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import Stack, free_port, wait_until
from tests.integration.redis_server.servers import running
from tests.warm_start import BITLADDER

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
COMMANDS = (["serve"], ["worker", "--tier", "int4"], ["up"])
UNLIMITED = resource.RLIM_INFINITY


def ended(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a command that should end by itself; return its status and what it wrote on stderr."""
    done = BITLADDER.run("bitladder.cli.main", *arguments, env=environment)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cluster-enabled", "yes"), "runs in cluster mode"),
        (("--requirepass", "SECRET"), "asks for a password: set redis.password"),
        (("--maxmemory-policy", "allkeys-lru"), "it must be 'noeviction'"),
        (("--replicaof", "127.0.0.1", "1"), "redis.url must name the primary"),
    ],
    ids=["cluster", "password", "evicting", "replica"],
)
def test_each_command_ends_with_status_2_and_one_line(tmp_path: Path, options: tuple[str, ...], expected: str) -> None:
    with running(tmp_path, *options) as url:
        environment = Stack(url).environment
        for command in COMMANDS if "--cluster-enabled" in options else COMMANDS[:2]:
            status, errors = ended(environment, *command)

            assert (status, len(errors.splitlines())) == (2, 1), errors
            assert errors.startswith("bitladder")
            assert f"Redis at {url} " in errors
            assert expected in errors
        doctor = BITLADDER.run("bitladder.cli.main", "doctor", "--only", "redis", env=environment)
        assert doctor.returncode == 1
        assert expected in next(line for line in doctor.stdout.splitlines() if line.startswith("fail    redis.serves"))


def test_a_server_that_cannot_keep_the_promise_is_one_line_too(tmp_path: Path) -> None:
    with running(tmp_path, "--appendonly", "no") as url:
        environment = Stack(url, BITLADDER_QUEUE__DURABILITY="fsync").environment
        status, errors = ended(environment, "serve")

        assert (status, len(errors.splitlines())) == (2, 1), errors
        assert "set appendonly yes" in errors
        doctor = BITLADDER.run("bitladder.cli.main", "doctor", "--only", "redis", env=environment)
        assert doctor.returncode == 1
        assert "fail    redis.durability" in doctor.stdout
        assert "set appendonly yes" in doctor.stdout


class Refusing:
    """A stack on a server of its own, whose faults come and go."""

    def __init__(self, stack: Stack, store: redis.Redis, pid: int, log: Path) -> None:
        self.stack, self.store, self.pid, self._log = stack, store, pid, log

    def logged(self, event: str, command: str) -> list[dict[str, Any]]:
        return [line for line in self._lines(command) if line["event"] == event]

    def _lines(self, command: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines() if line[:1] == "{"]
        return [line for line in lines if ("worker" in line) == (command == "worker")]

    def ends(self, command: str) -> list[dict[str, Any]]:
        return [line for line in self._lines(command) if line["event"].startswith("Redis is back after ")]

    def fill_disk(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (4096, UNLIMITED))
        wait_until(self._is_full, "the server cannot write")

    def _is_full(self) -> bool:
        try:
            return not self.store.set("filler", "x" * 1000)
        except redis.ResponseError as error:
            return "MISCONF" in str(error)

    def make_room(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))

    def is_worker_ready(self) -> bool:
        page = httpx2.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        return 'bitladder_worker_ready{model="smollm2",tier="int4"} 1.0' in page

    metrics_port = 0


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Refusing]:
    settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(tmp_path / "valkey"))
    # As Python's own: a file that may not grow is an error of its write, not the end of the process.
    server = subprocess.Popen(server_command(settings), stdout=subprocess.DEVNULL, restore_signals=False)
    store, stack = redis.Redis.from_url(settings.url), Stack(settings.url)
    refusing = Refusing(stack, store, server.pid, tmp_path / "log")
    refusing.metrics_port = free_port()
    with (tmp_path / "log").open("wb") as stack.output:
        stack.intake()
        stack.start("worker", "--tier", "int4", "--metrics-port", str(refusing.metrics_port))
        wait_until(lambda: stack.live("int4") == 1, "the worker is live")
        yield refusing
        stack.stop()
    store.close()
    server.kill()
    server.wait()


def demote(refusing: Refusing) -> None:
    refusing.store.replicaof("127.0.0.1", 1)


def promote(refusing: Refusing) -> None:
    refusing.store.replicaof("NO", "ONE")


def deny(refusing: Refusing) -> None:
    refusing.store.acl_setuser("default", enabled=True, commands=["-evalsha"])


def allow(refusing: Refusing) -> None:
    refusing.store.acl_setuser("default", enabled=True, commands=["+evalsha"])


FAULTS: dict[str, tuple[Callable[[Refusing], None], Callable[[Refusing], None], str]] = {
    "disk full": (Refusing.fill_disk, Refusing.make_room, "cannot write to its own disk: make room there"),
    "read-only": (demote, promote, "redis.url must name the primary"),
    "a right": (deny, allow, "compose/redis.acl"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_redis_turns_readiness_off_is_logged_once_and_ends_by_itself(refusing: Refusing, fault: str) -> None:
    begin, end, expected = FAULTS[fault]
    stack = refusing.stack

    begin(refusing)
    wait_until(lambda: stack.http.get("/readyz").status_code == 503, "the intake is not ready")
    wait_until(lambda: not refusing.is_worker_ready(), "the worker is not ready")
    asked = [stack.http.get("/readyz") for _ in range(20)]
    refused = stack.http.post("/v1/jobs", json=BODY)
    end(refusing)
    wait_until(lambda: stack.http.get("/readyz").status_code == 200, "the intake is ready")
    wait_until(refusing.is_worker_ready, "the worker is ready")
    answer = stack.http.post("/v1/completions", json=BODY)

    assert {one.status_code for one in (*asked, refused)} == {503}
    assert expected in asked[-1].json()["error"]["message"]
    assert answer.status_code == 200
    for command in ("serve", "worker"):
        assert [expected in line["error"] for line in refusing.logged("Redis cannot serve", command)] == [True]
        assert len(refusing.ends(command)) == 1
        assert refusing.logged("Redis is unreachable", command) == []


def test_a_policy_that_evicts_turns_the_intake_s_readiness_off_and_lets_workers_go_on(refusing: Refusing) -> None:
    stack = refusing.stack

    refusing.store.config_set("maxmemory-policy", "allkeys-lru")
    wait_until(lambda: stack.http.get("/readyz").status_code == 503, "the intake is not ready")
    answer = stack.http.post("/v1/completions", json=BODY)
    refusing.store.config_set("maxmemory-policy", "noeviction")
    wait_until(lambda: stack.http.get("/readyz").status_code == 200, "the intake is ready")

    assert answer.status_code == 200
    assert refusing.logged("Redis cannot serve", "worker") == []


@pytest.mark.parametrize("name", ["MyCluster", "MISCONF", "READONLY"])
def test_a_server_that_cannot_be_reached_refuses_nothing_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    client = connect_sync(RedisSettings(url=f"unix://{tmp_path}/{name}"))

    with pytest.raises(RedisConnectionError) as caught:
        client.ping()

    assert name in str(caught.value)
    assert refusal_of(caught.value) is None


def test_a_host_that_is_called_a_cluster_is_none() -> None:
    lost = RedisConnectionError("Error 111 connecting to MyCluster.example.org:6379. Connection refused.")

    assert refusal_of(lost) is None
    assert refusal_of(RedisConnectionError("CLUSTERDOWN Hash slot not served")) is CLUSTER
