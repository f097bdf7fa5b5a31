"""An intake and its workers against thousands of odd requests on raw sockets: none is a defect, none hangs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import ROOT, Stack, wait_until
from tests.fuzz.cases import COMPLETION, Cases
from tests.fuzz.wire import Answer, Case, talk
from tests.fuzzing import IS_LONG, SEED, sized

# Redis is there, so nothing but a job's own deadline may answer with 504, and a full house with 503.
ALLOWED = (503, 504)
AT_ONCE = 48
LIMITS = {
    "BITLADDER_INTAKE__HEADER_TIMEOUT_S": "1",
    "BITLADDER_INTAKE__BODY_TIMEOUT_S": "1",
    "BITLADDER_INTAKE__MAX_WAIT_S": "1",
    "BITLADDER_ECHO__TTFT_MS": "0",
    "BITLADDER_ECHO__TOKENS_PER_S": "100000",
}
# The longest that an answer may take: limits of the intake, a job behind many others, and a slow machine.
MOST_S = 20.0


@pytest.fixture
def stack(redis_url: str, store: redis.Redis, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(redis_url, **LIMITS)
    with (tmp_path / "log").open("w+b") as stack.output:
        stack.intake()
        for tier in ("int4", "int8", "fp8"):
            stack.worker(tier)
        yield stack
        stack.stop()


class Tally:
    """What came of the cases."""

    def __init__(self) -> None:
        self.by_kind: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.wrong: list[dict[str, object]] = []
        self.slowest_s = 0.0

    def add(self, case: Case, answer: Answer, took_s: float) -> None:
        self.by_kind[case.kind] += 1
        self.by_status["left" if case.leaves else str(answer.status or "closed")] += 1
        self.slowest_s = max(self.slowest_s, took_s)
        if reason := _fault(case, answer):
            sent, said = (repr(raw[:600]) for raw in (b"".join(case.pieces), answer.raw))
            self.wrong.append({"reason": reason, "kind": case.kind, "sent": sent, "said": said})


def _fault(case: Case, answer: Answer) -> str:
    if answer.hung:
        return f"no answer within {MOST_S} s"
    if answer.status >= 500 and answer.status not in ALLOWED:
        return "a server error"
    if answer.status >= 400 and not answer.error() and not answer.reset and not case.pieces[0].startswith(b"HEAD "):
        return "not OpenAI's shape of an error"
    return ""


async def fuzz(port: int, count: int) -> Tally:
    cases, tally = Cases(SEED), Tally()
    stream = islice(cases, count)

    async def run() -> None:
        for case in stream:
            start = time.monotonic()
            answer = await talk(port, case, MOST_S)
            tally.add(case, answer, time.monotonic() - start)
            if answer.status == 202 and (found := re.search(rb'"id":"([\w-]+)"', answer.raw)):
                cases.jobs.append(found[1].decode())

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(run())
    return tally


def unfinished(store: redis.Redis) -> list[bytes]:
    """Return ids of jobs that are not over, and what workers hold."""
    held = [key for key in store.scan_iter("bl:inflight:*")]
    jobs = [
        key for key in store.scan_iter("rq:job:*", count=1000) if store.hget(key, "status") in (b"queued", b"started")
    ]
    return held + jobs


@pytest.mark.fuzz
@pytest.mark.stack
def test_nothing_that_a_socket_can_say_is_a_defect(stack: Stack, store: redis.Redis) -> None:
    count, start = sized(2000, 25_000), time.monotonic()

    tally = asyncio.run(fuzz(stack.port, count))

    figures: dict[str, Any] = {
        "seed": SEED,
        "cases": count,
        "seconds": round(time.monotonic() - start, 1),
        "slowest_s": round(tally.slowest_s, 2),
        "kinds": dict(tally.by_kind),
        "answers": dict(tally.by_status.most_common()),
        "jobs": sum(1 for _ in store.scan_iter("rq:job:*", count=1000)),
        "wrong": tally.wrong,
    }
    report(figures)
    assert tally.wrong == []
    assert sum(tally.by_kind.values()) == count
    assert stack.http.post("/v1/completions", json=COMPLETION).status_code == 200
    wait_until(lambda: not unfinished(store), "every accepted job is over")
    assert [process.poll() for process in stack.processes] == [None] * 4
    assert stack.output
    assert b"Traceback" not in Path(stack.output.name).read_bytes()


def report(figures: dict[str, Any]) -> None:
    path = ROOT / "var" / "fuzz" / "wire.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    line = (
        f"wire fuzz: {figures['cases']} cases, seed {figures['seed']}, {figures['seconds']} s, {figures['jobs']} jobs, "
        f"{len(figures['wrong'])} wrong, slowest {figures['slowest_s']} s, answers {figures['answers']}\n"
    )
    sys.stderr.write(f"\n{line}" if IS_LONG else line)
