"""A password of Redis is changed under a running system, step by step as docs/operating.md says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import redis

from bitladder.client import Client
from bitladder.errors import ConfigError
from bitladder.producer import Producer
from bitladder.queue.server.connection import connect, connect_sync
from bitladder.queue.server.embedded import server_command
from tests.conftest import Stack, echo_tokens, make_settings, wait_until
from tests.integration.redis_server.test_redis_roles import PASSWORDS, Guarded, bitladder
from tests.integration.redis_server.test_sentinel import BODY, Submitter, status_of

ROLES = ("intake", "worker", "producer")
STREAM = BODY | {"prompt": " ".join(f"w{number}" for number in range(300)), "max_tokens": 300}


class Secrets:
    """A file with the password of each role, and the users that they belong to."""

    def __init__(self, folder: Path, server: Guarded) -> None:
        self._folder, self._server = folder, server
        for role in ROLES:
            self.write(role, PASSWORDS[role])

    def path(self, role: str) -> Path:
        return self._folder / f"{role}.password"

    def write(self, role: str, password: str) -> None:
        """Put the new file in the place of the old one, so that nobody reads half of it."""
        new = self._folder / "new"
        new.write_text(f"{password}\n", encoding="utf-8")
        new.chmod(0o600)
        new.rename(self.path(role))

    def environment(self, role: str) -> dict[str, str]:
        rest = self._server.environment(role)
        del rest["BITLADDER_REDIS__PASSWORD"]
        return rest | {"BITLADDER_REDIS__PASSWORD_FILE": str(self.path(role))}

    def rotate(self, role: str) -> None:
        with self._server.client("admin") as admin:
            admin.execute_command("ACL", "SETUSER", role, f">{_new(role)}")
            self.write(role, _new(role))
            admin.execute_command("CLIENT", "KILL", "USER", role)
            admin.execute_command("ACL", "SETUSER", role, f"<{PASSWORDS[role]}")
            admin.execute_command("CLIENT", "KILL", "USER", role)


def _new(role: str) -> str:
    return f"NEW {role} s3cret"


class Producing:
    """Submits one job after the other straight into Redis, on a thread of its own."""

    def __init__(self, server: Guarded, secrets: Secrets) -> None:
        settings = make_settings(
            server.url, redis__username="producer", redis__password_file=str(secrets.path("producer"))
        )
        self._producer, self._stop = Producer(settings), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.accepted: list[str] = []
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.close()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.02):
                self.accepted.append(self._producer.submit(BODY))
        except Exception as error:
            self.error = error


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guarded]:
    server = Guarded(tmp_path / "server", "valkey")
    server.start()
    yield server
    server.stop()


def test_passwords_are_changed_under_a_running_system_and_nothing_is_lost(server: Guarded, tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, server)
    stack = Stack(server.url)
    with (tmp_path / "log").open("wb") as stack.output:
        stack.environment |= secrets.environment("intake")
        stack.intake()
        stack.environment |= secrets.environment("worker")
        stack.worker("int4")
        with Submitter(stack) as submitter, Producing(server, secrets) as producing, Client(stack.url) as client:
            wait_until(lambda: len(submitter.accepted()) > 20 < len(producing.accepted), "jobs come in")
            stream = client.stream(STREAM)
            first = next(stream)

            for role in ROLES:
                secrets.rotate(role)
            rest = list(stream)
            http, direct = len(submitter.accepted()), len(producing.accepted)
            wait_until(lambda: len(submitter.accepted()) > http + 20, "jobs are accepted by HTTP")
            wait_until(lambda: len(producing.accepted) > direct + 20, "jobs are accepted from a producer")
        accepted = submitter.accepted() + producing.accepted
        wait_until(lambda: {status_of(stack, one) for one in accepted} == {"finished"}, "every job has finished", 60)
        shown = bitladder(stack.environment, "config", "show")
        stack.stop()

    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert producing.error is None
    assert {status for _, status, _ in submitter.answers} <= {202, 503}
    assert [first, *rest] == echo_tokens(300)
    assert [entry for entry in server.refusals() if entry["reason"] == "auth"] == []
    for secret in (*(_new(role) for role in ROLES), *(PASSWORDS[role] for role in ROLES)):
        assert secret not in log + shown
    for role in ROLES:
        with server.client(role) as old, pytest.raises(redis.exceptions.AuthenticationError):
            old.ping()


def test_without_its_file_the_last_password_is_used_and_the_log_says_so(server: Guarded, tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, server)
    stack = Stack(server.url)
    with (tmp_path / "log").open("wb") as stack.output:
        stack.environment |= secrets.environment("intake")
        stack.intake()
        secrets.path("intake").unlink()
        with server.client("admin") as admin:
            admin.execute_command("CLIENT", "KILL", "USER", "intake")
        wait_until(lambda: stack.http.post("/v1/jobs", json=BODY).status_code == 202, "jobs are accepted")
        stack.stop()

    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "redis.password_file must be a file with one line, the password" in log
    assert PASSWORDS["intake"] not in log


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"SECRET\nSECRET\n", "it has more"),
        (b"SECRET" * 1000, "it has more"),
        (b"SECRET\xff", "it is no text"),
    ],
)
def test_a_file_without_a_password_is_named_at_the_start_and_not_repeated(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    settings = make_settings("redis://h:1", redis__password_file=str(path)).redis

    for make in (connect, connect_sync):
        with pytest.raises(ConfigError, match=f"redis.password_file must be a file with one line.*{why}") as caught:
            make(settings)
        assert "SECRET" not in str(caught.value)


def test_a_password_is_given_once() -> None:
    path = "/run/secrets/redis"
    with pytest.raises(ConfigError, match="password must be given once"):
        make_settings("redis://:secret@h:1", redis__password_file=path)
    with pytest.raises(ConfigError, match="has no users"):
        server_command(make_settings("redis://127.0.0.1:1/0", redis__password_file=path).redis)
