"""`bitladder up` as a supervisor: what dies is started again, and what is asked to end ends in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import redis

from bitladder.client import Client
from tests.conftest import ROOT, OwnValkey, free_port, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
EVERYTHING = ["redis", "web", "worker_int4", "worker_int8", "worker_fp8"]


class Up:
    """`bitladder up` on a configuration of its own, in a session of its own as a terminal gives it one."""

    def __init__(self, folder: Path, *, cwd: Path | None = None, **settings: str) -> None:
        self.folder, self.log, self._cwd = folder, folder / "up.log", cwd or folder
        self.port, self.redis_port = free_port(), free_port()
        ours = f"[redis]\nurl = 'redis://127.0.0.1:{self.redis_port}/0'\n[intake]\nport = {self.port}\n"
        folder.mkdir(exist_ok=True)
        self.config = folder / "bitladder.toml"
        self.config.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8") + ours, encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BITLADDER_")}
        self._environment = kept | settings
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "bitladder.cli.main", "up", "--engine", "echo", "-c", str(self.config)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self._cwd, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    def wait_until_it_answers(self) -> None:
        with self.client() as client:
            wait_until(lambda: is_answered(client), f"a job is answered; {self.log}", 60)
        wait_until(lambda: sorted(self.pids()) == sorted(EVERYTHING), "all were started", 60)
        wait_until(lambda: self.live_tiers() == 3, "all tiers are live", 60)

    def live_tiers(self) -> int:
        live = httpx2.get(f"http://127.0.0.1:{self.port}/readyz").json().get("live_workers", {})
        return sum(count for tiers in live.values() for count in tiers.values())

    def pids(self) -> dict[str, int]:
        """Return the latest number of each process."""
        return {name: int(pid) for name, pid in re.findall(r"\| (\w+) started \(pid=(\d+)\)", self.text())}

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def said(self) -> list[str]:
        return [line.partition("| ")[2] for line in self.text().splitlines() if " system " in line]

    def ctrl_c(self) -> None:
        """Do as the terminal does: everything in the foreground's process group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)


@contextmanager
def up(folder: Path, cwd: Path | None = None, **settings: str) -> Iterator[Up]:
    """Run a stack, and leave nothing of it."""
    stack = Up(folder, cwd=cwd, **settings)
    try:
        yield stack
    finally:
        stack.process.kill()  # its children end with it
        stack.process.wait()


@contextmanager
def stored(stack: Up) -> Iterator[redis.Redis]:
    """Look at what an ended stack has left, in a Valkey on its files."""
    valkey = OwnValkey(stack.folder / "var" / "valkey")
    valkey.start()
    client = redis.Redis.from_url(valkey.url)
    try:
        yield client
    finally:
        client.close()
        valkey.kill()


def is_answered(client: Client) -> bool:
    try:
        return bool(client.wait(client.submit(BODY)["id"], timeout_s=5)["status"] == "finished")
    except Exception:
        return False


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False


def test_whatever_is_killed_is_started_again_and_no_job_is_lost(tmp_path: Path) -> None:
    with up(tmp_path) as stack, stack.client() as client:
        stack.wait_until_it_answers()
        running = client.submit(BODY | {"max_tokens": 400}, max_tier="int4")["id"]
        wait_until(lambda: client.result(running)["status"] == "running", "a job runs")
        for name in ("worker_int4", "web", "redis"):
            before = stack.pids()[name]
            os.kill(before, signal.SIGKILL)
            wait_until(lambda name=name, pid=before: stack.pids()[name] != pid, f"{name} is started again")  # type: ignore[misc]
        stack.wait_until_it_answers()
        done = client.wait(running, timeout_s=60)  # the shipped lease, 15 s, runs out first
        said = stack.said()

    assert (done["status"], done["tier"]) == ("finished", "int4")
    for name in ("worker_int4", "web", "redis"):
        assert f"{name} was ended by SIGKILL; it is started again in 0.5 s" in said


def test_ctrl_c_ends_the_intake_before_the_workers_and_both_before_redis(tmp_path: Path) -> None:
    """What runs and what a client waits for is answered; what nobody waits for is stored, or stays queued."""
    with up(tmp_path) as stack, stack.client() as client:
        stack.wait_until_it_answers()
        url = f"http://127.0.0.1:{stack.port}/v1/completions"
        headers = {"X-Max-Tier": "int4"}
        with ThreadPoolExecutor(24) as pool:  # more than int4's slots: some wait in its queue when the signal comes
            awaited = [
                pool.submit(httpx2.post, url, json=BODY | {"max_tokens": 400}, headers=headers, timeout=60)
                for _ in range(24)
            ]
            wait_until(lambda: (depth(stack, "in_flight"), depth(stack, "depth")) == (16, 8), "int4 is full")
            fire_and_forget = client.submit(BODY | {"max_tokens": 600})["id"]
            stack.ctrl_c()
            answers = [answer.result().status_code for answer in awaited]
        status = stack.process.wait(90)

    ended = [line.split()[0] for line in stack.said() if " ended with " in line]
    assert answers == [200] * 24
    assert status == 0
    assert (ended[0], ended[-1]) == ("web", "redis")
    assert sorted(ended) == sorted(EVERYTHING)
    with stored(stack) as store:
        assert store.hget(f"rq:job:{fire_and_forget}", "status") == b"finished"
        assert store.keys("bl:inflight:*") == []


def depth(stack: Up, field: str) -> int:
    tiers = httpx2.get(f"http://127.0.0.1:{stack.port}/v1/queues").json()["data"][0]["tiers"]
    return int(next(tier[field] for tier in tiers if tier["tier"] == "int4"))


def test_a_second_ctrl_c_requeues_what_runs_and_a_client_hears_where_it_goes_on(tmp_path: Path) -> None:
    with up(tmp_path) as stack, stack.client() as client:
        stack.wait_until_it_answers()
        long = client.submit(BODY | {"max_tokens": 50_000})["id"]
        wait_until(lambda: client.result(long)["status"] == "running", "it runs")
        with ThreadPoolExecutor(1) as pool:
            url = f"http://127.0.0.1:{stack.port}/v1/completions"
            waiting = pool.submit(httpx2.post, url, json=BODY | {"max_tokens": 50_000}, timeout=60)
            wait_until(lambda: depth(stack, "in_flight") == 2, "both run")
            stack.ctrl_c()
            wait_until(lambda: any(line.startswith("SIGINT:") for line in stack.said()), "it is heard")
            stack.ctrl_c()
            answer = waiting.result()
        status = stack.process.wait(25)  # less than any of the times to finish in

    assert status == 0
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "intake_closing")
    with stored(stack) as store:
        fields = store.hmget(f"rq:job:{long}", "status", "fence", "uncharged")
        assert fields[0] == b"queued"
        assert fields[1] == fields[2]


def test_nothing_outlives_a_killed_up_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with up(tmp_path, BITLADDER_QUEUE__LEASE_S="2") as stack, stack.client() as client:
        stack.wait_until_it_answers()
        job = client.submit(BODY | {"max_tokens": 1000})["id"]
        wait_until(lambda: client.result(job)["status"] == "running", "it runs")
        pids = stack.pids()
        stack.process.kill()
        stack.process.wait()
        wait_until(lambda: not any(map(is_running, pids.values())), "all have ended", 5)

        stack.process = stack.start()
        stack.wait_until_it_answers()
        assert client.wait(job, timeout_s=60)["status"] == "finished"


def test_two_stacks_run_on_one_machine_and_one_on_the_other_s_places_is_refused_in_a_line(tmp_path: Path) -> None:
    with up(tmp_path / "a") as first, up(tmp_path / "b", cwd=tmp_path / "a") as second:
        first.wait_until_it_answers()
        second.wait_until_it_answers()
        same = Up(tmp_path / "c", BITLADDER_INTAKE__PORT=str(first.port))
        statuses = [same.process.wait(20)]
        beside = Up(tmp_path / "d", BITLADDER_REDIS__DATA_DIR=str(tmp_path / "a" / "var" / "valkey"))
        statuses.append(beside.process.wait(20))
        url = f"redis://127.0.0.1:{first.redis_port}/0"
        places = {"e": tmp_path / "a", "f": tmp_path / "f"}  # the other's data_dir, and one of its own
        joined = [Up(tmp_path / name, cwd=cwd, BITLADDER_REDIS__URL=url) for name, cwd in places.items()]
        statuses += [one.process.wait(20) for one in joined]
        second.wait_until_it_answers()

    assert (tmp_path / "a" / "var" / "valkey" / "appendonlydir").is_dir()
    assert (tmp_path / "b" / "var" / "valkey" / "appendonlydir").is_dir()
    assert statuses == [2, 2, 2, 2]
    assert [len(one.text().splitlines()) for one in (same, beside, *joined)] == [1, 1, 1, 1]
    for one in joined:
        assert f"got {url!r}, the embedded one of another bitladder up" in one.text()
    assert f"intake.port: 127.0.0.1:{first.port} is in use by another process" in same.text()
    assert "redis.data_dir must be a folder that no other stack uses" in beside.text()


def test_of_two_that_start_on_one_configuration_at_once_one_is_refused_in_a_line(tmp_path: Path) -> None:
    with up(tmp_path) as stack:
        second = stack.start()
        try:
            wait_until(lambda: 2 in (stack.process.poll(), second.poll()), "one is refused", 60)
            wait_until(lambda: is_up(stack), "the other is up", 60)
            statuses = sorted((stack.process.poll() or 0, second.poll() or 0))
            starts = [line for line in stack.said() if " started (pid=" in line]
        finally:
            second.kill()
            second.wait()

    assert statuses == [0, 2]
    assert len(starts) == len(EVERYTHING)
    refusals = (
        "two stacks need one each",
        "the embedded one of another bitladder up",
        "is in use by another process",
        "cannot listen on",
    )
    assert sum(map(stack.text().count, refusals)) == 1


def is_up(stack: Up) -> bool:
    with stack.client() as client:
        return is_answered(client)


def test_a_redis_that_does_not_serve_yet_is_used_and_waited_for(tmp_path: Path, own_valkey: OwnValkey) -> None:
    """It is at its limit of clients at first."""
    other = redis.Redis.from_url(own_valkey.url)
    other.config_set("maxclients", 1)
    with up(tmp_path, BITLADDER_REDIS__URL=own_valkey.url) as stack:
        wait_until(lambda: "does not serve yet" in stack.text(), "up waits for it", 60)
        other.config_set("maxclients", 1000)
        with stack.client() as client:
            wait_until(lambda: is_answered(client), "a job is answered", 60)

    assert "redis" not in stack.pids()
    assert other.ping()
    other.close()
