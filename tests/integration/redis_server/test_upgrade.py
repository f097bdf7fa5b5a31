"""docs/operating/guides/upgrade-and-rollback.md: this version beside an earlier one, and back, under load.

The earlier one is a commit of this repository: $BEFORE, or the last one before operators could steer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bitladder.client import Client
from tests.conftest import ROOT, Process, Stack, wait_until
from tests.integration.batches.test_batches import BatchUser, lines_of
from tests.integration.steady_clients import SteadyClients

BEFORE = os.environ.get("BEFORE", "1f7472d")


class EarlierStack(Stack):
    """Processes of an earlier version: what is in their folder comes first."""

    def __init__(self, redis_url: str, folder: Path, **environment: str) -> None:
        super().__init__(redis_url, PYTHONPATH=str(folder), **environment)
        self._folder = folder

    def start(self, *arguments: str) -> Process:
        command = [sys.executable, "-m", "bitladder.cli.main", *arguments]
        self.processes.append(subprocess.Popen(command, cwd=self._folder, env=self.environment))
        return self.processes[-1]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"this repository has no commit {BEFORE}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    where = [sys.executable, "-c", "import bitladder, workers; print(bitladder.__file__, workers.__file__)"]
    assert subprocess.run(where, cwd=folder, capture_output=True, text=True, check=True).stdout.count(str(folder)) == 2
    return folder


@pytest.fixture
def stacks(redis_url: str, store: redis.Redis, earlier: Path, tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    settings = {
        "BITLADDER_FILES__STORE": str(tmp_path / "files"),
        "BITLADDER_ECHO__EXECUTION_LOG": str(tmp_path / "log"),
    }
    both = EarlierStack(redis_url, earlier, **settings), Stack(redis_url, **settings)
    yield both
    for stack in both:
        stack.kill()


@pytest.mark.long
@pytest.mark.parametrize("order", [("worker", "intake"), ("intake", "worker")], ids="-then-".join)
def test_an_upgrade_and_its_rollback_lose_and_double_nothing(
    stacks: tuple[Stack, Stack], store: redis.Redis, order: tuple[str, str], tmp_path: Path
) -> None:
    old, new = stacks

    def start(stack: Stack, part: str) -> Process:
        if part == "intake":
            stack.intake()
            return stack.processes[-1]
        before = store.zcard("bl:live:smollm2:int4")
        process = stack.start("worker", "--tier", "int4")
        wait_until(lambda: store.zcard("bl:live:smollm2:int4") > before, "it is live")
        return process

    running = {part: start(old, part) for part in order}
    user = BatchUser(old)
    with SteadyClients(old.url, new.url) as clients:
        batch = user.create(lines_of(400))
        for version, parts in ((new, order), (old, order[::-1])):  # the upgrade, and back
            for part in parts:
                successor = start(version, part)
                running[part].terminate()
                assert running[part].wait(60) == 0
                running[part] = successor
                clients.go_on()

    with Client(old.url) as client:
        jobs = [client.wait(job_id, timeout_s=60) for job_id in clients.ids]
    assert {(job["status"], job["attempts"]) for job in jobs} == {("finished", 1)}
    done = user.wait(batch.id)
    assert (done.status, len(user.lines(done.output_file_id))) == ("completed", 400)
    entries = [json.loads(each) for each in (tmp_path / "log").read_text().splitlines()]
    answered = Counter(entry["job_id"] for entry in entries if entry.get("how") == "answered")
    assert set(answered.values()) == {1}
    assert len(answered) == len(jobs) + 400
