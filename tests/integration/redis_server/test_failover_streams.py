"""Streams across changes of the primary: each is whole, or says what it lacks. Settings as they ship."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx2
import pytest

from tests.chaos.proxy import Proxy
from tests.chaos.sentinels import Watched
from tests.chaos.valkey import Valkey
from tests.conftest import Stack, echo_tokens, wait_until
from tests.integration.redis_server.test_sentinel import stack_on
from tests.warm_start import BITLADDER

WORDS = echo_tokens(160)
BODY = {"model": "smollm2", "prompt": "".join(WORDS), "max_tokens": len(WORDS), "stream": True}
PACE = {"BITLADDER_ECHO__TOKENS_PER_S": "20"}  # 8 s for a stream
GUARDED = ("--min-replicas-to-write", "1")  # as docs/operating.md advises


@dataclass
class Reader:
    """Reads one stream on a thread of its own: as OpenAI's clients do, or at the address of a job."""

    stack: Stack
    is_job: bool
    texts: list[str] = field(default_factory=list)
    end: str = ""  # [DONE], or the code of an error
    job_id: str = ""

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read)

    def start(self) -> Self:
        self._thread.start()
        return self

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        if not self.is_job:
            with httpx2.stream("POST", f"{self.stack.url}/v1/completions", json=BODY, timeout=120) as answer:
                self.job_id = answer.headers["X-Job-Id"]
                self._take(answer.iter_lines())
            return
        if not self.job_id:
            self.job_id = httpx2.post(f"{self.stack.url}/v1/jobs", json=BODY, timeout=10).json()["id"]
        with httpx2.stream("GET", f"{self.stack.url}/v1/jobs/{self.job_id}/events", timeout=120) as answer:
            self._take(answer.iter_lines())

    def _take(self, lines: Iterable[str]) -> None:
        for line in lines:
            data = line.removeprefix("data: ") if line.startswith(("data: ", "{")) else ""
            event = json.loads(data) if data.startswith("{") else {}
            if "error" in event or data == "[DONE]":
                self.end = event["error"]["code"] if event else data
            elif event:
                self.texts.append(event["choices"][0]["text"])


def reading(stack: Stack, count: int) -> list[Reader]:
    """Return readers of both kinds in the middle of their streams."""
    readers = [Reader(stack, is_job=bool(number % 2)).start() for number in range(count)]
    wait_until(lambda: all(len(reader.texts) > 10 for reader in readers), "every stream has begun", 30)
    return readers


def read_again(readers: Iterable[Reader]) -> set[str]:
    """Read the same streams from their start, and return how they ended."""
    return came_to([Reader(reader.stack, is_job=True, job_id=reader.job_id).start() for reader in readers])


def came_to(readers: Iterable[Reader]) -> set[str]:
    """Return how streams ended, and see that those which say they are whole are, and the others up to their end."""
    ends = set()
    for reader in readers:
        reader.join()
        ends.add(reader.end)
        assert reader.texts == (WORDS if reader.end == "[DONE]" else WORDS[: len(reader.texts)])
    return ends


def test_streams_are_whole_across_a_primary_that_is_killed(tmp_path: Path) -> None:
    with Watched(tmp_path, 2, 1000, *GUARDED) as watched:
        stack = stack_on(watched, **PACE)
        readers, before = reading(stack, 10), watched.primary()

        watched.kill(before)
        ends = came_to(readers)
        again = read_again(readers)
        stack.stop()

        assert watched.primary_after(before)
    assert ends == {"[DONE]"}
    assert again <= {"[DONE]", "stream_incomplete"}  # what the old primary alone had is lost


def test_streams_are_whole_across_a_planned_failover(tmp_path: Path) -> None:
    with Watched(tmp_path, 2, 30_000, *GUARDED) as watched:
        stack = stack_on(watched, **PACE)
        readers, before = reading(stack, 10), watched.primary()

        done = BITLADDER.run("bitladder.cli.main", "failover", env=stack.environment, timeout=120)
        ends = came_to(readers)
        again = read_again(readers)
        stack.stop()

        assert watched.primary_after(before)
    assert done.returncode == 0, done.stderr
    assert ends == again == {"[DONE]"}


@pytest.mark.long
def test_streams_wait_for_as_long_as_the_new_primary_has_no_replica(tmp_path: Path) -> None:
    """The only replica has taken over, and takes no writes until the old primary is back: longer than a lease."""
    with Watched(tmp_path, 1, 1000, *GUARDED) as watched:
        stack = stack_on(watched, **PACE)
        readers, before = reading(stack, 10), watched.primary()

        watched.kill(before)
        watched.primary_after(before)
        time.sleep(35)
        watched.start(before)
        ends = came_to(readers)
        stack.stop()

    assert ends == {"[DONE]"}


def test_streams_across_a_failover_that_lost_two_seconds_are_whole_or_say_what_they_lack(tmp_path: Path) -> None:
    """The replica that takes over has had nothing from its primary for two seconds; more than replication lags."""
    with (
        Valkey(tmp_path / "old", "everysec") as old,
        Valkey(tmp_path / "new", "everysec") as new,
        Proxy(old.port) as proxy,
    ):
        new.store.replicaof("127.0.0.1", old.port)
        wait_until(lambda: new.store.info("replication")["master_link_status"] == "up", "the replica has the data")
        stack = Stack(f"redis://127.0.0.1:{proxy.port}/0", **PACE)
        stack.intake()
        stack.worker("int4")
        early = reading(stack, 6)

        new.store.replicaof("NO", "ONE")
        late = reading(stack, 6)
        time.sleep(2)
        old.kill()
        proxy.target_port = new.port
        known, unknown = came_to(early), came_to(late)
        again, gone = read_again(early), read_again(late)
        stack.stop()

    assert known == {"[DONE]"}  # told as they came
    assert unknown == {"job_lost"}
    assert again == {"stream_incomplete"}
    assert gone == {"not_found"}
