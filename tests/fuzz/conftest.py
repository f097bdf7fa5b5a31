"""One intake with an echo worker per tier, shared by all that is thrown at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import Stack

LIMITS = {
    "BITLADDER_INTAKE__HEADER_TIMEOUT_S": "1",
    "BITLADDER_INTAKE__BODY_TIMEOUT_S": "1",
    "BITLADDER_INTAKE__MAX_WAIT_S": "1",
    "BITLADDER_ECHO__TTFT_MS": "0",
    "BITLADDER_ECHO__TOKENS_PER_S": "100000",
}


@pytest.fixture(scope="package")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
    stack = Stack(redis_url, **LIMITS)
    with (tmp_path_factory.mktemp("fuzz") / "log").open("w+b") as stack.output:
        stack.intake()
        for tier in ("int4", "int8", "fp8"):
            stack.worker(tier)
        yield stack
        stack.stop()


def defects(stack: Stack) -> str:
    """Return the first defect that the stack's processes have logged, with its surroundings; '' where there is none."""
    assert stack.output
    log = Path(stack.output.name).read_text(encoding="utf-8", errors="replace")
    place = log.find("Traceback")
    return log[max(0, place - 500) : place + 4000] if place >= 0 else ""
