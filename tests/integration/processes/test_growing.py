"""docs/operating/guides/adding-a-tier.md and adding-a-model.md: their steps, under load, with two intakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import Process, Stack, wait_until
from tests.integration.steady_clients import SteadyClients
from tests.page_examples import blocks

TIER = '[[models.smollm2.tiers]]\nname = "{}"\nprice_per_hour = 1.0\n'
INT4, FP8 = TIER.format("int4"), TIER.format("fp8")
BEFORE = f"[models.smollm2]\n{INT4}{FP8}"
INT8 = blocks("docs/operating/guides/adding-a-tier.md", "toml")
LLAMA = blocks("docs/operating/guides/adding-a-model.md", "toml")


class Site:
    """Two intakes and the workers of a model, with one file of settings."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.file = folder / "bitladder.toml"
        self.file.write_text(BEFORE, encoding="utf-8")
        settings = {"BITLADDER_CONFIG": str(self.file), "BITLADDER_FILES__STORE": str(folder / "files")}
        self.stacks = [Stack(redis_url, **settings) for _ in range(2)]
        self.intakes: list[Process] = []
        self.workers: dict[str, Process] = {}
        self._store = redis.Redis.from_url(redis_url)
        for stack in self.stacks:
            stack.intake()
            self.intakes.append(stack.processes[-1])

    @property
    def urls(self) -> list[str]:
        return [stack.url for stack in self.stacks]

    def restart_intakes(self) -> None:
        for number, stack in enumerate(self.stacks):
            self.intakes[number].terminate()
            assert self.intakes[number].wait(30) == 0
            stack.intake()
            self.intakes[number] = stack.processes[-1]

    def start_worker(self, tier: str, model: str = "smollm2") -> None:
        live = f"bl:live:{model}:{tier}"
        name = f"{model}:{tier}"
        if name in self.workers:
            self.workers[name].terminate()
            assert self.workers[name].wait(30) == 0
        before = self._store.zcard(live)
        self.workers[name] = self.stacks[0].start("worker", "--model", model, "--tier", tier)
        wait_until(lambda: self._store.zcard(live) > before, f"a worker of {name} is live")

    def stop_worker(self, name: str) -> None:
        self.workers[name].terminate()
        assert self.workers.pop(name).wait(30) == 0

    def ask(self, intake: int = 0, **body: Any) -> tuple[int, str]:  # noqa: ANN401  (any field)
        """Await an answer; return its status, and its tier or the error's code."""
        asked = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3} | body
        answer = self.stacks[intake].http.post("/v1/completions", json=asked)
        return answer.status_code, answer.headers.get("x-tier", "") or answer.json()["error"]["code"]

    def depth(self, queue: str) -> int:
        return int(self._store.llen(f"rq:queue:{queue}"))


@pytest.fixture
def site(redis_url: str, store: redis.Redis, tmp_path: Path) -> Iterator[Site]:
    site = Site(redis_url, tmp_path)
    yield site
    for stack in site.stacks:
        stack.kill()


@pytest.mark.long
def test_a_tier_and_a_model_come_and_go_and_nobody_is_refused(site: Site) -> None:
    for tier in ("int4", "fp8"):
        site.start_worker(tier)
    with SteadyClients(*site.urls) as clients:
        clients.go_on()
        assert site.ask(model="smollm2:int8")[0] == 404

        site.file.write_text(f"[models.smollm2]\n{INT4}{INT8[0]}{FP8}", encoding="utf-8")
        site.start_worker("int8")
        clients.go_on()
        site.restart_intakes()
        assert [site.ask(intake, model="smollm2:int8") for intake in (0, 1)] == [(200, "int8")] * 2
        for tier in ("fp8", "int4"):
            site.start_worker(tier)
        clients.go_on()

        site.file.write_text(site.file.read_text(encoding="utf-8") + LLAMA[0], encoding="utf-8")
        site.start_worker("int4", "llama-8b")
        assert site.ask(model="llama-8b") == (404, "model_not_found")
        site.restart_intakes()
        assert site.ask(1, model="llama-8b") == (200, "int4")

        site.file.write_text(BEFORE, encoding="utf-8")
        site.restart_intakes()
        for tier in ("fp8", "int4"):
            site.start_worker(tier)
        site.stop_worker("smollm2:int8")
        site.stop_worker("llama-8b:int4")
        clients.go_on()
    done = [site.stacks[0].http.get(f"/v1/jobs/{job_id}", params={"wait": 20}).json() for job_id in clients.ids]
    assert Counter((job["status"], job["attempts"]) for job in done) == {("finished", 1): len(clients.ids)}
