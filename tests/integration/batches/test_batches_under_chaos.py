"""Batches while intakes and workers are killed or stopped, and Redis is: one result a line, and no line run twice.

A line is run again only where its worker was killed.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import OwnValkey, Process, Stack, free_port, wait_until

URL = "/v1/completions"
LINES, BATCHES, BROKEN_S = 300, 3, 30.0
ENDS = ("completed", "failed", "expired", "cancelled")


class System:
    """Two intakes and two workers, each of which is started again when it was killed."""

    def __init__(self, stack: Stack, valkey: OwnValkey, seed: int) -> None:
        self.urls = [stack.url, f"http://127.0.0.1:{free_port()}"]
        self.killed: set[int] = set()  # pids of workers
        self._stack, self._valkey, self._rng = stack, valkey, random.Random(seed)  # noqa: S311
        self._intakes = [self._intake(0), self._intake(1)]
        wait_until(lambda: all(self.get("/readyz", url) for url in self.urls), "the intakes answer")
        self._workers = [self._worker(), self._worker()]

    def _intake(self, which: int) -> Process:
        self._stack.environment["BITLADDER_INTAKE__PORT"] = self.urls[which].rpartition(":")[2]
        return self._stack.start("serve")

    def _worker(self) -> Process:
        return self._stack.start("worker", "--tier", "int4")

    def get(self, path: str, url: str = "") -> httpx2.Response | None:
        """Ask any intake until one answers well; None: this one does not."""
        for one in [url] if url else self.urls:
            with contextlib.suppress(httpx2.HTTPError):
                answer = httpx2.get(one + path, timeout=5)
                if answer.status_code == 200:
                    return answer
        return None

    def break_something(self) -> None:
        breaks = [self._kill_intake, self._kill_intake, self._stop_intake, self._kill_worker, self._stop_valkey]
        self._rng.choice(breaks)(self._rng.randrange(2))

    def _kill_intake(self, which: int) -> None:
        self._intakes[which].kill()
        self._intakes[which].wait()
        self._intakes[which] = self._intake(which)

    def _stop_intake(self, which: int) -> None:
        """For longer than a lease: it goes on as if no time had passed."""
        self._intakes[which].send_signal(signal.SIGSTOP)
        time.sleep(9)
        self._intakes[which].send_signal(signal.SIGCONT)

    def _kill_worker(self, which: int) -> None:
        self.killed.add(self._workers[which].pid)
        self._workers[which].kill()
        self._workers[which].wait()
        self._workers[which] = self._worker()

    def _stop_valkey(self, which: int) -> None:
        del which
        self._valkey.send(signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.5, 9))  # longer than a lease, too
        self._valkey.send(signal.SIGCONT)


def create(system: System, number: int) -> str:
    lines = [
        {
            "custom_id": f"c{line}",
            "method": "POST",
            "url": URL,
            "body": {"model": "smollm2:int4", "prompt": f"b{number} w{line} " + "x " * 60, "max_tokens": 60},
        }
        for line in range(LINES)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    with httpx2.Client(base_url=system.urls[0], timeout=30) as client:
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}).json()
        new = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "1h"}
        return str(client.post("/v1/batches", json=new).json()["id"])


def wait(system: System, batch_id: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def is_over() -> bool:
        if answer := system.get(f"/v1/batches/{batch_id}"):
            seen.update(answer.json())
        return seen.get("status") in ENDS

    wait_until(is_over, "the batch has ended", 180)
    return seen


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_each_line_has_one_result_whatever_breaks(
    make_stack: Callable[..., Stack], own_valkey: OwnValkey, tmp_path: Path, seed: int
) -> None:
    log = tmp_path / "executions.jsonl"
    stack = make_stack(
        BITLADDER_REDIS__URL=own_valkey.url,
        BITLADDER_FILES__STORE=str(tmp_path / "files"),
        BITLADDER_ECHO__EXECUTION_LOG=str(log),
        BITLADDER_ECHO__TOKENS_PER_S="50",
    )
    system = System(stack, own_valkey, seed)
    ids = [create(system, number) for number in range(BATCHES)]
    end_s = time.monotonic() + BROKEN_S
    while time.monotonic() < end_s:
        system.break_something()
        time.sleep(2)

    batches = [wait(system, batch_id) for batch_id in ids]

    for number, batch in enumerate(batches):
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        assert batch["error_file_id"] is None
        output = system.get(f"/v1/files/{batch['output_file_id']}/content")
        assert output
        results = [json.loads(line) for line in output.text.splitlines()]
        texts = {result["custom_id"]: result["response"]["body"]["choices"][0]["text"] for result in results}
        assert len(results) == LINES
        assert sorted(texts) == sorted(f"c{line}" for line in range(LINES))
        assert all(text.startswith(f"b{number} w{name[1:]} ") for name, text in texts.items())
    runs = defaultdict(list)
    for event in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if event["event"] == "begin":
            runs[event["job_id"]].append(event["pid"])
    assert len(runs) == LINES * BATCHES
    again = {job_id: pids for job_id, pids in runs.items() if not set(pids[:-1]) <= system.killed}
    assert again == {}, Counter(map(len, again.values()))
