"""compose/redis.acl on a real server: a whole system runs on it, and no role can do more than it needs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from pydantic import SecretStr
from rq import Queue
from rq.group import Group
from rq.serializers import JSONSerializer

from bitladder.client import Client
from bitladder.contract import State
from bitladder.producer import Producer
from bitladder.queue.run_script import source
from bitladder.queue.server.embedded import server_command
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import ROOT, Stack, free_port, make_settings, wait_until
from tests.integration.intake.test_security import BODY, bearer, keys_in_toml
from tests.warm_start import BITLADDER
from workers.rollout.lock import RolloutLock

ROLES = ("admin", "intake", "worker", "producer", "readonly")
PASSWORDS = {role: f"{role} p@ss:/?#[]" for role in (*ROLES, "health")}  # of health: any will do


# The wheel's Valkey, and where it is installed the oldest Redis that is supported, which differs in its rules.
SERVERS = {"valkey": None, "redis": shutil.which("redis-server")}


class Guarded:
    """A server with the ACL file, and clients of every role."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind, binary = kind, SERVERS[kind]
        settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder))
        self.url = settings.url
        self._acl = folder / "users.acl"
        command = [*server_command(settings), "--appendfsync", "always", "--aclfile", str(self._acl)]
        self._command = [binary or command[0], *command[1:]]
        version = subprocess.run([self._command[0], "--version"], capture_output=True, text=True, check=True).stdout
        self.is_7_0 = "v=7.0." in version
        self.write_acl()
        self._process: subprocess.Popen[bytes] | None = None

    def write_acl(self, default_user: str = "") -> None:
        """Write the file that ships; `default_user` replaces its rule of the default user."""
        environment = {f"REDIS_PASSWORD_{role.upper()}": password for role, password in PASSWORDS.items()}
        script = ["sh", str(ROOT / "compose" / "redis-acl.sh"), *(["7.0"] if self.is_7_0 else [])]
        acl = subprocess.run(script, env=os.environ | environment, capture_output=True, text=True, check=True).stdout
        if default_user:
            acl = "\n".join(
                [default_user, *(line for line in acl.splitlines() if not line.startswith("user default "))]
            )
        self._acl.write_text(acl, encoding="utf-8")

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "the server answers")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with self.client("admin") as admin:
                return bool(admin.ping())
        except redis.RedisError:
            return False

    @property
    def durability(self) -> str:
        """The safest that this server knows: WAITAOF came with 7.2."""
        return "everysec" if self.is_7_0 else "fsync"

    def client(self, role: str) -> redis.Redis:
        return redis.Redis.from_url(self.url, username=role, password=PASSWORDS[role])

    def environment(self, role: str) -> dict[str, str]:
        return {
            "BITLADDER_REDIS__URL": self.url,
            "BITLADDER_REDIS__USERNAME": role,
            "BITLADDER_REDIS__PASSWORD": PASSWORDS[role],
            "BITLADDER_QUEUE__DURABILITY": self.durability,
        }

    def refusals(self) -> list[dict[str, Any]]:
        """Return what the server has refused to its users."""
        with self.client("admin") as admin:
            return [{key: entry[key] for key in ("username", "reason", "object")} for entry in admin.acl_log()]


@pytest.fixture
def stack(server: Guarded) -> Iterator[Stack]:
    stack = Stack(server.url, BITLADDER_AUTH__KEYS=keys_in_toml(), BITLADDER_QUEUE__LEASE_S="1.5")
    stack.http.headers.update(bearer("ops"))
    stack.environment |= server.environment("intake")
    stack.intake()
    stack.environment |= server.environment("worker")
    yield stack
    stack.stop()


def bitladder(environment: dict[str, str], *arguments: str) -> str:
    done = BITLADDER.run("bitladder.cli.main", *arguments, env=environment)
    done.check_returncode()
    return done.stdout


def test_a_whole_system_runs_with_a_user_for_each_role(stack: Stack, server: Guarded) -> None:
    worker, leaving = stack.worker("int4"), stack.worker("int8")
    with Client(stack.url, api_key=stack.http.headers["authorization"].partition(" ")[2]) as client:
        _every_way_of_a_job(client, stack)
        _webhooks(client, stack)
        worker.kill()  # its jobs are reaped by another
        wait_until(lambda: stack.live("int4") == 0, "the dead worker's lease has run out")
        leaving.terminate()
        assert leaving.wait(15) == 0
        stack.worker("int4")
        crashed = client.submit(BODY | {"prompt": "echo:crash"}, max_tier="int4")["id"]
        assert client.wait(crashed, timeout_s=30)["status"] == "failed"
        assert stack.http.get("/v1/dead-letters").json()["total"] == 1
        reader = stack.environment | server.environment("readonly")
        assert json.loads(bitladder(reader, "dead-letters", "show", crashed))["id"] == crashed
        assert stack.http.post("/v1/dead-letters/release", json={"ids": [crashed]}).json()["released"] == [crashed]
        assert client.wait(crashed, timeout_s=30)["status"] == "failed"
        assert stack.http.post("/v1/dead-letters/drop", json={"all": True}).json()["dropped"] == [crashed]
    for path in ("/readyz", "/metrics", "/v1/queues"):
        assert stack.http.get(path).status_code == 200
    _producers(server)
    shown = bitladder(reader, "queues", "--json")
    assert '"live_workers": 1' in shown

    # No role may read the configuration; who wants fsync looks whether it can, and goes on.
    assert {entry["object"] for entry in server.refusals()} <= {"config|get"}


WEBHOOK = {"X-Webhook-Url": "https://localhost:1/", "X-Webhook-Secret": f"whsec_{'A' * 44}"}


def _every_way_of_a_job(client: Client, stack: Stack) -> None:
    assert stack.http.post("/v1/completions", json=BODY, headers=bearer("few")).status_code == 200
    first = client.submit(BODY, idempotency_key="once")["id"]
    assert client.submit(BODY, idempotency_key="once")["id"] == first
    assert client.wait(first, timeout_s=10)["status"] == "finished"
    assert "".join(client.stream(BODY)) == "aa bb aa"
    streamed = client.submit(BODY | {"stream": True})["id"]
    assert "[DONE]" in stack.http.get(f"/v1/jobs/{streamed}/events").text
    running = client.submit(BODY | {"max_tokens": 50_000})["id"]
    wait_until(lambda: client.result(running)["status"] == "running", "the job runs")
    client.cancel(running)
    assert client.wait(running, timeout_s=10)["status"] == "cancelled"
    waiting = client.submit(BODY, priority=9)["id"]
    assert client.cancel(waiting)["status"] in ("cancelled", "finished")
    for number in range(20):
        client.submit(BODY | {"prompt": f"p {number}", "max_tokens": 200}, max_tier="int4")


def _webhooks(client: Client, stack: Stack) -> None:
    fields = {"name": "one", "url": "https://localhost:1/", "event_types": ["job.cancelled", "job.finished"]}
    endpoint = stack.http.post("/v1/webhook_endpoints", json=fields).raise_for_status().json()
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    stack.http.post(f"{path}/rotate_secret", json={}).raise_for_status()
    named = {"webhook_url": "https://localhost:1/", "webhook_secret": endpoint["signing_secret"]}
    finished = client.wait(client.submit(BODY, **named)["id"], timeout_s=10)["id"]
    client.cancel(client.submit(BODY, deadline_ms=60_000)["id"])
    for log in (f"/v1/jobs/{finished}/deliveries", f"{path}/deliveries"):
        wait_until(lambda log=log: stack.http.get(log).json()["data"] != [], "an attempt was made")  # type: ignore[misc]
    assert stack.http.delete(path).json()["deleted"]


def _producers(server: Guarded) -> None:
    settings = make_settings(
        server.url,
        redis__username="producer",
        redis__password=PASSWORDS["producer"],
        queue__durability=server.durability,
    )
    with Producer(settings) as producer:
        outcome = producer.run(BODY, headers={"Idempotency-Key": "once"} | WEBHOOK, timeout_s=10)
        ids = producer.submit_many(BODY | {"prompt": f"p {number}"} for number in range(50))
        last = producer.wait(str(ids[-1]), timeout_s=30)
    with server.client("producer") as connection:
        queue = Queue("smollm2:int4:normal", connection=connection, serializer=JSONSerializer)
        theirs = queue.enqueue("workers.generate", body=BODY, at_front=True)
        assert theirs.latest_result(timeout=30)
        value = theirs.return_value()
        theirs.get_position()
        call = Queue.prepare_data("workers.generate", kwargs={"body": BODY})
        Group.create(connection=connection).enqueue_many(queue, [call, call])
        assert queue.enqueue_in(timedelta(minutes=1), "workers.generate", body=BODY).get_status() == "scheduled"
    assert outcome is not None
    assert last is not None
    assert outcome.state is last.state is State.FINISHED
    assert value
    assert value["choices"][0]["text"] == "aa bb aa"


FORBIDDEN = [
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SCAN", "0"), ("SHUTDOWN",), ("MONITOR",),
    ("EVAL", "return 1", "0"), ("SCRIPT", "FLUSH"), ("FUNCTION", "LIST"), ("ACL", "LIST"), ("CLIENT", "LIST"),
    ("DEBUG", "JMAP"), ("REPLICAOF", "no", "one"), ("SAVE",), ("MODULE", "LIST"), ("SORT", "rq:queues"),
    ("GET", "somebody:else"), ("SET", "somebody:else", "1"), ("DEL", "somebody:else"), ("SUBSCRIBE", "somebody:else"),
]  # fmt: skip
OF_OTHERS = {
    "intake": [
        ("HSET", "rq:worker:x", "a", "1"), ("ZADD", "bl:workers", "1", "x"), ("SREM", "bl:inflight:x", "1"),
        ("LPOP", "rq:queue:x"), ("ZREM", "rq:wip:x", "1"), ("XADD", "bl:stream:x", "*", "d", "1"),
    ],
    "worker": [
        ("GET", "bl:idem:m:t:k"), ("SET", "bl:idem:m:t:k", "x y"), ("DEL", "bl:idem:m:t:k"),
        ("SET", "bl:rate:acme", "0"),
    ],
    "producer": [
        ("LPOP", "rq:queue:x"), ("PUBLISH", "bl:done:x", "forged"), ("SUBSCRIBE", "bl:control:x"),
        ("ZADD", "bl:workers", "1", "x"), ("XRANGE", "bl:stream:x", "-", "+"), ("SET", "bl:rate:acme", "0"),
    ],
    "readonly": [
        ("SET", "bl:rate:acme", "0"), ("HSET", "rq:job:x", "a", "1"), ("DEL", "rq:job:x"), ("LPUSH", "rq:queue:x", "1"),
        ("ZADD", "bl:live:m:t", "1", "x"), ("PEXPIRE", "rq:job:x", "1"), ("PUBLISH", "bl:done:x", "forged"),
        ("SUBSCRIBE", "bl:done:x"), ("XADD", "bl:stream:x", "*", "d", "1"),
    ],
}  # fmt: skip


async def test_a_worker_may_hold_the_rollout_lock(server: Guarded) -> None:
    settings = RedisSettings(url=server.url, username="worker", password=SecretStr(PASSWORDS["worker"]))
    first, second = RolloutLock(settings, "smollm2"), RolloutLock(settings, "smollm2")

    assert await first.acquire()
    await first.renew()
    assert not await second.acquire()
    await first.release()
    assert await second.acquire()

    await first.close()
    await second.close()
    assert [entry for entry in server.refusals() if "rollout" in entry["object"]] == []


@pytest.mark.parametrize("role", OF_OTHERS)
def test_a_role_can_do_nothing_beyond_its_work(server: Guarded, role: str) -> None:
    with server.client("admin") as admin:
        allowed = [
            command
            for command in (*FORBIDDEN, *OF_OTHERS[role])
            if admin.execute_command("ACL", "DRYRUN", role, *command) == b"OK"
        ]

    assert allowed == []


def test_the_intake_s_user_cannot_empty_the_server(server: Guarded) -> None:
    with server.client("intake") as client:
        for command in ("FLUSHALL", "CONFIG GET *", "KEYS *"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())


def test_scripts_can_do_no_more_than_who_calls_them(server: Guarded) -> None:
    with server.client("readonly") as client:
        digest = client.script_load(source("drop"))
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.evalsha(str(digest), 1, "bl:dead_letters", 1, "x")
        planted = client.script_load("return redis.call('SET', 'bl:rate:acme', '0')")
        with pytest.raises(redis.exceptions.ResponseError, match=r"ACL failure|can.t run this command"):
            client.evalsha(str(planted), 0)


def test_nobody_is_let_in_without_a_name_and_a_health_check_can_ask_nothing_else(server: Guarded) -> None:
    with redis.Redis.from_url(server.url) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()
    with redis.Redis.from_url(server.url, username="health", password=PASSWORDS["health"]) as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("bl:dead_letters")


def test_a_restart_of_the_server_keeps_every_accepted_job(server: Guarded) -> None:
    environment = server.environment("producer")
    settings = make_settings(
        server.url, redis__username="producer", redis__password=environment["BITLADDER_REDIS__PASSWORD"]
    )
    with server.client("admin") as admin:
        admin.flushall()
    with Producer(settings) as producer:
        ids = producer.submit_many(BODY | {"prompt": f"p {number}"} for number in range(200))

    server.stop()
    server.start()

    with server.client("admin") as admin:
        kept = [admin.hget(f"rq:job:{job_id}", "status") for job_id in ids]
        queues = list(admin.scan_iter("rq:queue:*"))
        waiting = sum(int(admin.llen(queue)) for queue in queues)
        refused = admin.acl_log()
        admin.flushall()
    assert kept == [b"queued"] * 200
    assert waiting == 200
    assert refused == []


@pytest.mark.parametrize("rule", ["user default reset on nopass +ping", "user default reset off"])
def test_a_server_that_would_lose_its_jobs_at_a_restart_is_refused(
    server: Guarded, make_stack: Callable[..., Stack], rule: str, tmp_path: Path
) -> None:
    if server.kind == "valkey":
        pytest.skip("Valkey does not check what it reads from its append-only file")
    server.write_acl(rule)
    server.stop()
    server.start()
    stack = make_stack(**server.environment("intake"))

    with (tmp_path / "log").open("wb") as stack.output:
        status = stack.start("serve").wait(20)

    server.write_acl()
    server.stop()
    server.start()
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert status != 0
    assert "user default reset off ~* &* +@all" in log


@pytest.mark.parametrize("password", ["wrong SECRET", ""])
def test_a_wrong_password_is_one_clear_line_without_it(
    make_stack: Callable[..., Stack], server: Guarded, password: str, tmp_path: Path
) -> None:
    stack = make_stack(**server.environment("intake") | {"BITLADDER_REDIS__PASSWORD": password})
    with (tmp_path / "log").open("wb") as stack.output:
        status = stack.start("serve").wait(20)

    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert (status, len(log.splitlines())) == (2, 1)
    assert log.startswith(f"bitladder: Redis at {server.url} ")
    assert "SECRET" not in log


def test_credentials_in_the_url_work_and_are_shown_nowhere(server: Guarded) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
        "PYTHONPATH": str(ROOT),
    }
    environment |= {"BITLADDER_REDIS__URL": _url(server, "readonly")}

    queues = bitladder(environment, "queues", "--json")
    shown = bitladder(environment, "config", "show")

    assert '"model": "smollm2"' in queues
    assert f'redis.url = "{server.url}"' in shown
    assert 'redis.username = "readonly"' in shown
    assert "p@ss" not in shown
    assert "p%40ss" not in shown


def _url(server: Guarded, role: str) -> str:
    return server.url.replace("://", f"://{role}:{quote(PASSWORDS[role], safe='')}@")
