"""An intake and its workers against thousands of odd requests on raw sockets: none is a defect, none hangs."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import redis

from tests.conftest import Stack, wait_until
from tests.fuzz.cases import COMPLETION, Cases
from tests.fuzz.conftest import defects
from tests.fuzz.wire import Answer, Case, talk
from tests.fuzzing import SEED, report, sized

# Redis is there, so nothing but a job's own deadline may answer with 504, and a full house with 503.
ALLOWED = (503, 504)
AT_ONCE = 48
# The longest that an answer may take: limits of the intake, a job behind many others, and a slow machine.
MAX_S = 20.0


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
            sent, said = (repr(raw[:600]) for raw in (b"".join(case.chunks), answer.raw))
            self.wrong.append({"reason": reason, "kind": case.kind, "sent": sent, "said": said})


def _fault(case: Case, answer: Answer) -> str:
    if answer.hung:
        return f"no answer within {MAX_S} s"
    if answer.status >= 500 and answer.status not in ALLOWED:
        return "a server error"
    if answer.status >= 400 and not answer.error() and not answer.reset and not case.chunks[0].startswith(b"HEAD "):
        return "not OpenAI's shape of an error"
    return ""


async def fuzz(port: int, count: int) -> Tally:
    cases, tally = Cases(SEED), Tally()
    stream = islice(cases, count)

    async def run() -> None:
        for case in stream:
            start = time.monotonic()
            answer = await talk(port, case, MAX_S)
            tally.add(case, answer, time.monotonic() - start)
            if answer.status == 202 and (found := re.search(rb'"id":"([\w-]+)"', answer.raw)):
                cases.jobs.append(found[1].decode())

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(run())
    return tally


def jobs_in(store: redis.Redis) -> int:
    return sum(1 for _ in store.scan_iter("rq:job:*", count=1000))


def unfinished(store: redis.Redis) -> list[bytes]:
    """Return ids of jobs that are not over, and what workers hold."""
    held = [key for key in store.scan_iter("bl:inflight:*")]
    jobs = [
        key for key in store.scan_iter("rq:job:*", count=1000) if store.hget(key, "status") in (b"queued", b"started")
    ]
    return held + jobs


@pytest.mark.fuzz
@pytest.mark.stack
def test_nothing_that_a_socket_can_say_is_a_defect(stack: Stack, redis_url: str) -> None:
    count, start = sized(2000, 25_000), time.monotonic()
    store = redis.Redis.from_url(redis_url)
    before = jobs_in(store)

    tally = asyncio.run(fuzz(stack.port, count))

    figures: dict[str, Any] = {
        "cases": count,
        "seconds": round(time.monotonic() - start, 1),
        "slowest_s": round(tally.slowest_s, 2),
        "kinds": dict(tally.by_kind),
        "answers": dict(tally.by_status.most_common()),
        "jobs": jobs_in(store) - before,
        "wrong": tally.wrong,
    }
    sentence = f"{count} cases in {figures['seconds']} s, {figures['jobs']} jobs, answers {figures['answers']}"
    report("wire", figures, f"{sentence}, slowest {figures['slowest_s']} s, {len(tally.wrong)} wrong")
    assert tally.wrong == []
    assert sum(tally.by_kind.values()) == count
    assert stack.http.post("/v1/completions", json=COMPLETION).status_code == 200
    wait_until(lambda: not unfinished(store), "every accepted job is over")
    assert [process.poll() for process in stack.processes] == [None] * 4
    store.close()
    assert defects(stack) == ""
