"""Intakes that are killed while they run a batch: another one goes on, and no line is run twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.conftest import Stack, wait_until
from tests.integration.batches.test_batches import BatchUser, line


@pytest.mark.parametrize("until", ["created", "submitted", "collected", "stopped"])
def test_a_batch_outlives_the_intake_that_ran_it(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path, until: str
) -> None:
    log = tmp_path / "executions.log"
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "files"), BITLADDER_ECHO__EXECUTION_LOG=str(log))
    stack.intake()
    intake = stack.processes[-1]
    stack.worker("int4")
    user = BatchUser(stack)
    batch = user.create([line(f"c{n}", f"w{n} {'echo:slow' * (n % 4 == 3)}") for n in range(64)], "24h")
    if until != "created":
        wait_until(lambda: bool(store.keys(f"rq:job:{batch.id}-*")), "a line is a job")
    if until in ("collected", "stopped"):
        user.wait(batch.id, "in_progress")
        wait_until(lambda: bool(_completed(user, batch.id)), "results are written")
    intake.terminate() if until == "stopped" else intake.kill()
    intake.wait(30)
    stack.environment["BITLADDER_INTAKE__PORT"] = str(stack.port)
    stack.intake()

    done = user.wait(batch.id)

    answers, errors = user.lines(done.output_file_id), user.lines(done.error_file_id)
    assert done.status == "completed"
    assert sorted(answers) == sorted(f"c{n}" for n in range(64))
    assert errors == {}
    begun = [
        entry["job_id"] for each in log.read_text().splitlines() if (entry := json.loads(each))["event"] == "begin"
    ]
    assert sorted(begun) == sorted(f"{batch.id}-{n + 1}" for n in range(64))


def _completed(user: BatchUser, batch_id: str) -> int:
    counts = user.client.batches.retrieve(batch_id).request_counts
    return counts.completed if counts else 0
