"""A ladder is published while the stack serves: every worker takes it in turn, and no job is lost or changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import tomli_w
from jsonschema import Draft202012Validator

from bitladder.client import Client
from tests.conftest import ROOT, Stack, free_port, wait_until
from tests.fake_vllm import install
from tests.warm_start import BITLADDER

EVALUATION = {"report": "0" * 64, "reference": "bf16", "made_at": "2026-11-24T12:00:00+00:00"}
FIGURE = {"value": 7.5, "low": 7.0, "high": 8.0, "n": 10}
# Of a folder with {} as its config.json, and nothing else.
EMPTY_CONFIG = hashlib.sha256(f"config.json\0{hashlib.sha256(b'{}').hexdigest()}\n".encode()).hexdigest()
FAST = {"BITLADDER_ECHO__TTFT_MS": "20", "BITLADDER_WORKER__DRAIN_GRACE_S": "5"}


class Release:
    """A configuration with a ladder beside it, and folders that stand for checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "ladder.toml"
        self.config = folder / "bitladder.toml"
        example = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
        self.config.write_text(example.replace("{cache}", str(folder / "cache")), encoding="utf-8")
        self.version = 0

    def publish(self, name: str, *tiers: str, exists: bool = True, digest: str = EMPTY_CONFIG) -> None:
        """Write as `bitladder calibrate publish` does: beside, then renamed."""
        self.version += 1
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        if exists:
            (folder / "config.json").write_text("{}", encoding="utf-8")
        its = {
            "checkpoint": str(folder),
            "digest": EMPTY_CONFIG if digest is None else digest,
            "measured": {"perplexity": FIGURE},
        }
        models = {"smollm2": {"tiers": {tier: its | {"evaluation": EVALUATION} for tier in tiers}}}
        content = {"version": self.version, "published_at": "2026-11-24T12:00:00+00:00", "models": models}
        beside = self.file.with_suffix(".partial")
        beside.write_text(tomli_w.dumps(content), encoding="utf-8")
        beside.rename(self.file)


@pytest.fixture
def ladder(tmp_path: Path) -> Release:
    return Release(tmp_path)


@pytest.fixture
def stack(make_stack: Callable[..., Stack], ladder: Release) -> Stack:
    stack = make_stack(BITLADDER_CONFIG=str(ladder.config), BITLADDER_PUBLISH__FILE="ladder.toml", **FAST)
    stack.intake()
    return stack


def supervised(folder: Path) -> dict[str, str]:
    """Return the settings of a worker that starts a server, as it starts vLLM."""
    engine = {"BITLADDER_WORKER__ENGINE": "vllm", "BITLADDER_VLLM__PYTHON": install(folder)}
    cache = str(folder / "cache")
    return engine | {"BITLADDER_VLLM__ARGS": "[]", "BITLADDER_VLLM__ENV": "{}", "BITLADDER_VLLM__CACHE_DIR": cache}


def names(store: redis.Redis, tier: str = "int4") -> set[object]:
    """Return the live workers of a tier; one that has changed its checkpoint has another name."""
    return set(store.zrange(f"bl:live:smollm2:{tier}", 0, -1))


def shown(stack: Stack) -> dict[str, Any]:
    published: dict[str, Any] = stack.http.get("/v1/models/smollm2").json()["published"]
    return published


def shows(stack: Stack, tier: str, version: int) -> bool:
    """Return whether the intake has taken this release; it shows no tier before the first that it takes."""
    return tier in shown(stack) and bool(shown(stack)[tier]["version"] == version)


@contextmanager
def load(stack: Stack, max_tier: str = "int4") -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Submit jobs all the time and await each; the list has every one of them at the end."""
    jobs: list[tuple[int, dict[str, Any]]] = []
    is_over = threading.Event()

    def submit(lane: int) -> None:
        with Client(stack.url) as client:
            number = lane * 10_000
            while not is_over.is_set():
                number += 1
                body = {"model": "smollm2", "prompt": f"job {number}", "max_tokens": 10}
                job = client.submit(body, max_tier=max_tier)
                jobs.append((number, client.wait(job["id"], timeout_s=300)))

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(submit, lane) for lane in range(6)]
        yield jobs
        is_over.set()
        for one in running:
            one.result(300)


@contextmanager
def fewest_live(store: redis.Redis) -> Iterator[list[int]]:
    """Count the live workers all the time."""
    counts: list[int] = []
    is_over = threading.Event()

    def count() -> None:
        while not is_over.wait(0.02):
            counts.append(len(names(store)))

    thread = threading.Thread(target=count)
    thread.start()
    yield counts
    is_over.set()
    thread.join()


def test_a_ladder_is_taken_worker_by_worker_under_load_and_so_is_its_rollback(
    stack: Stack, store: redis.Redis, ladder: Release
) -> None:
    ladder.publish("old", "int4")
    workers = [stack.worker("int4"), stack.worker("int4")]

    with load(stack) as jobs, fewest_live(store) as live:
        for version, folder in ((2, "new"), (3, "old")):
            before, count = names(store), len(jobs)
            ladder.publish(folder, "int4")
            wait_until(lambda: not names(store) & before and len(names(store)) == 2, "both serve the new one")  # noqa: B023
            wait_until(lambda: shows(stack, "int4", version), "the intake shows it")  # noqa: B023
            wait_until(lambda: len(jobs) > count + 20, "jobs go on")  # noqa: B023

    assert [worker.poll() for worker in workers] == [None, None]
    assert min(live) == 1
    assert {(job["status"], job["attempts"], job["tier"]) for _, job in jobs} == {("finished", 1, "int4")}
    for number, job in jobs:
        assert job["result"]["choices"][0]["text"] == " ".join(["job", str(number)] * 5)
    wait_until(lambda: not store.exists("bl:rollout:smollm2"), "the last one leaves its turn")


def test_the_intake_shows_what_was_measured_and_not_where_it_is(stack: Stack, ladder: Release) -> None:
    assert shown(stack) == {}

    ladder.publish("new", "int4", "fp8")
    wait_until(lambda: set(shown(stack)) == {"int4", "fp8"}, "the intake shows both")

    assert shown(stack)["int4"]["measured"] == {"perplexity": FIGURE | {"bound": ""}}
    assert str(ladder.folder) not in json.dumps(shown(stack))
    document = stack.http.get("/openapi.json").json()
    Draft202012Validator({"$ref": "#/components/schemas/ModelList", **document}).validate(
        stack.http.get("/v1/models").json()
    )
    assert "bitladder_release_version 1.0" in stack.http.get("/metrics").text


def test_a_bad_ladder_is_refused_loudly_and_the_old_one_stays(
    stack: Stack, store: redis.Redis, ladder: Release, capfd: pytest.CaptureFixture[str]
) -> None:
    ladder.publish("new", "int4")
    stack.worker("int4")
    wait_until(lambda: shown(stack) != {}, "the intake shows the ladder")
    before = names(store)

    ladder.file.write_text("version = 2\n", encoding="utf-8")
    wait_until(lambda: "bitladder_releases_refused 1.0" in stack.http.get("/metrics").text, "it is refused")
    ladder.version = 2
    ladder.publish("newest", "int9")
    wait_until(lambda: "bitladder_releases_refused 2.0" in stack.http.get("/metrics").text, "it is refused")

    wait_until(lambda: capfd.readouterr().err.count("change refused") > 0, "it is said")
    assert shown(stack)["int4"]["version"] == 1
    assert names(store) == before
    ladder.publish("newest", "int4")
    wait_until(lambda: shows(stack, "int4", 4), "the next good one is taken")
    wait_until(lambda: names(store) != before, "the worker takes it as well")


def test_the_first_ladder_can_be_rolled_back_while_all_run(stack: Stack, store: redis.Redis, ladder: Release) -> None:
    first = ladder.folder / "cache" / "smollm2" / "int4"
    first.mkdir(parents=True)
    (first / "config.json").write_text("{}", encoding="utf-8")
    worker = stack.worker("int4")
    before = names(store)
    ladder.publish("new", "int4")
    wait_until(lambda: names(store).isdisjoint(before) and names(store) != set(), "the worker serves the ladder")
    wait_until(lambda: shown(stack) != {}, "the intake shows it")
    before = names(store)

    command = [sys.executable, "-m", "calibration", "rollback", "--config", str(ladder.config)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)

    wait_until(lambda: shown(stack) == {}, "the intake shows none")
    wait_until(lambda: names(store).isdisjoint(before) and names(store) != set(), "the worker serves its first one")
    assert "bitladder_release_version 0.0" in stack.http.get("/metrics").text
    assert "bitladder_releases_refused 0.0" in stack.http.get("/metrics").text
    assert worker.poll() is None


def test_a_checkpoint_that_is_not_there_is_refused_by_its_worker(
    stack: Stack, store: redis.Redis, ladder: Release, tmp_path: Path
) -> None:
    stack.environment |= supervised(tmp_path)
    ladder.publish("old", "int4")
    stack.worker("int4")
    before = names(store)

    ladder.publish("empty", "int4", exists=False)
    wait_until(lambda: shows(stack, "int4", 2), "the intake has taken it")
    time.sleep(2.5)  # two looks of the worker: what is shown here is that nothing happens

    assert names(store) == before
    (tmp_path / "empty" / "config.json").write_text("{}", encoding="utf-8")
    wait_until(lambda: names(store).isdisjoint(before) and names(store) != set(), "it is taken once it is there")


def test_a_folder_that_was_replaced_after_its_publication_is_not_loaded(
    stack: Stack, store: redis.Redis, ladder: Release, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack.environment |= supervised(tmp_path)
    ladder.publish("old", "int4")
    stack.worker("int4")
    before = names(store)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "model.safetensors").write_bytes(b"of a later calibration")

    ladder.publish("new", "int4")
    wait_until(lambda: "is not the checkpoint of release 2" in capfd.readouterr().err, "the worker says so")
    assert names(store) == before

    (tmp_path / "new" / "model.safetensors").unlink()
    wait_until(lambda: names(store).isdisjoint(before) and names(store) != set(), "it is taken once it is what it was")


def test_a_worker_does_not_start_on_another_checkpoint_than_was_published(
    stack: Stack, ladder: Release, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack.environment |= supervised(tmp_path)
    ladder.publish("old", "int4", digest="b" * 64)

    worker = stack.start("worker", "--tier", "int4")

    wait_until(lambda: "is not the checkpoint of release 1" in capfd.readouterr().err, "it says so")
    assert worker.poll() is None or worker.returncode
    doctor = ("bitladder.cli.main", "doctor", "--role", "worker", "--only", "checkpoints", "--json")
    assert "is not the checkpoint of release 1: its sha256 is " in digest_of(
        BITLADDER.run(*doctor, env=stack.environment)
    )
    ladder.publish("old", "int4")
    assert digest_of(BITLADDER.run(*doctor, env=stack.environment)) == "what release 2 says"


def digest_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return what doctor says of the digest of int4."""
    findings = json.loads(done.stdout)["findings"]
    return str(
        next(one["detail"] for one in findings if one["check"] == "checkpoints.digest" and "int4" in one["subject"])
    )


def test_a_worker_that_is_ended_while_it_changes_its_checkpoint_ends(
    stack: Stack, store: redis.Redis, ladder: Release
) -> None:
    worker = stack.worker("int4")
    with Client(stack.url) as client:
        job = client.submit({"model": "smollm2", "prompt": "a", "max_tokens": 400}, max_tier="int4")
        wait_until(lambda: client.result(job["id"])["status"] == "running", "a job runs for two seconds")

        ladder.publish("new", "int4")
        wait_until(lambda: names(store) == set(), "it drains")
        worker.terminate()

        assert worker.wait(15) == 0
        assert client.result(job["id"])["status"] == "finished"
    assert store.exists("bl:rollout:smollm2") == 0


def test_metrics_of_a_worker_follow_it_to_its_new_checkpoint(stack: Stack, ladder: Release) -> None:
    port = free_port()
    stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
    stack.worker("int4")

    def metrics() -> str:
        return httpx2.get(f"http://127.0.0.1:{port}/metrics").text

    assert 'bitladder_worker_release_version{model="smollm2",tier="int4"} 0.0' in metrics()
    ladder.publish("new", "int4")
    wait_until(
        lambda: 'bitladder_worker_release_version{model="smollm2",tier="int4"} 1.0' in metrics(), "it shows the version"
    )
    wait_until(lambda: 'bitladder_worker_ready{model="smollm2",tier="int4"} 1.0' in metrics(), "it is ready again")


def test_a_supervised_engine_is_started_anew_on_the_new_checkpoint(
    stack: Stack, ladder: Release, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack.environment |= supervised(tmp_path)
    ladder.publish("old", "int4")
    stack.worker("int4")
    said: list[dict[str, Any]] = []

    def started() -> list[str]:
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
        said.extend(event for event in map(json.loads, lines) if event["event"] == "engine started")
        return [Path(event["checkpoint"]).name for event in said]

    with load(stack) as jobs:
        wait_until(lambda: len(jobs) > 20, "jobs are served")
        ladder.publish("new", "int4")
        wait_until(lambda: started() == ["old", "new"], "the engine is started on the new one")
        count = len(jobs)
        wait_until(lambda: len(jobs) > count + 20, "jobs go on")

    assert {(job["status"], job["attempts"]) for _, job in jobs} == {("finished", 1)}
    assert not Path(f"/proc/{said[0]['pid']}").exists()
