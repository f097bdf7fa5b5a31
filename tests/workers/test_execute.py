"""workers/execute.py: the verdict on an execution, on a real echo engine."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from bitladder.contract import Claimed, Outcome, Request
from bitladder.decision import Decision
from bitladder.queue.signing import Signer
from bitladder.rq_call import encode_call
from bitladder.settings.worker_section import EchoSettings
from workers.clock import ServerClock
from workers.engines.echo import EchoEngine
from workers.execute import Executed, Executor, Verdict

LOOP = {"model": "m", "prompt": "an echo:loop", "max_tokens": 200}


class Collected:
    """Takes the chunks of a stream."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self, request: Request) -> None: ...

    async def send(self, data: bytes) -> None:
        assert data
        self.count += 1

    async def end(self, outcome: Outcome) -> Outcome:
        return msgspec.structs.replace(outcome, chunks=self.count)


def claimed(body: dict[str, Any], *, crash_count: int = 0, is_stream: bool = False) -> Claimed:
    request = Request(body=msgspec.Raw(msgspec.json.encode(body)), decision=Decision(floor="int4"), stream=is_stream)
    return Claimed(
        job_id="job",
        queue="m:int4:normal",
        data=encode_call(request),
        attempt=1,
        fence=1,
        enqueued_ms=0,
        deadline_ms=None,
        claimed_ms=0,
        crash_count=crash_count,
    )


async def run(job: Claimed, *, can_escalate: bool | None = None) -> tuple[Executed, list[str]]:
    """Execute a job; `can_escalate`: what is known of the tiers above, None: the output is not checked."""
    clock, begun = ServerClock(), list[str]()
    clock.observe(1000, time.monotonic())

    async def answer(job: Claimed) -> bool:
        return bool(can_escalate)

    executor = Executor(Signer(()), clock, None if can_escalate is None else answer)
    engine = EchoEngine(EchoSettings(ttft_ms=1, tokens_per_s=1e6))
    done = await executor.execute(job, engine, Collected(), lambda _: begun.append(job.job_id), lambda: None)
    return done, begun


@pytest.mark.parametrize(
    ("can_escalate", "verdict", "code", "kind"),
    [
        (True, Verdict.ESCALATE, "degenerate_output", "loop"),
        (False, Verdict.FINISH, None, "loop"),
        (None, Verdict.FINISH, None, None),
    ],
)
async def test_a_degenerate_answer_is_withheld_only_where_a_higher_tier_can_try(
    can_escalate: bool | None, verdict: Verdict, code: str | None, kind: str | None
) -> None:
    done, _ = await run(claimed(LOOP), can_escalate=can_escalate)

    assert (done.verdict, done.outcome.code, done.degenerate) == (verdict, code, kind)
    assert (done.outcome.answer is None) is (verdict is Verdict.ESCALATE)


async def test_the_engine_is_free_for_others_before_anything_waits_for_redis() -> None:
    clock, order = ServerClock(), list[str]()
    clock.observe(1000, time.monotonic())

    async def can_escalate(job: Claimed) -> bool:
        order.append("higher tiers are looked up")
        return False

    class Stream(Collected):
        async def send(self, data: bytes) -> None:
            await super().send(data)
            order.append("a chunk is sent")

    executor = Executor(Signer(()), clock, can_escalate)
    engine = EchoEngine(EchoSettings(ttft_ms=1, tokens_per_s=1e6))
    await executor.execute(claimed(LOOP), engine, Stream(), lambda _: None, lambda: order.append("the engine is free"))

    assert order == ["the engine is free", "higher tiers are looked up"]


async def test_a_degenerate_stream_that_readers_have_seen_is_only_counted() -> None:
    done, _ = await run(claimed(LOOP, is_stream=True), can_escalate=True)

    assert (done.verdict, done.degenerate, done.outcome.chunks) == (Verdict.FINISH, "loop", 200)


@pytest.mark.parametrize(
    ("prompt", "crash_count", "verdict"),
    [
        ("fine", 0, Verdict.FINISH),
        ("echo:busy", 0, Verdict.REQUEUE),
        ("echo:fault", 0, Verdict.ESCALATE),
        ("echo:crash", 0, Verdict.ISOLATE),
        ("echo:crash", 1, Verdict.ISOLATE),
        ("echo:crash", 2, Verdict.DEAD_LETTER),
    ],
)
async def test_what_the_engine_did_decides_what_becomes_of_the_job(
    prompt: str, crash_count: int, verdict: Verdict
) -> None:
    done, begun = await run(claimed({"model": "m", "prompt": prompt}, crash_count=crash_count), can_escalate=True)

    assert done.verdict is verdict
    assert begun == ["job"]


async def test_a_job_that_cannot_be_read_reaches_no_engine() -> None:
    done, begun = await run(msgspec.structs.replace(claimed(LOOP), data=b"not a call"))

    assert (done.verdict, done.outcome.code, done.has_begun, begun) == (Verdict.DEAD_LETTER, "corrupt_job", False, [])


async def test_a_job_whose_deadline_has_passed_reaches_no_engine() -> None:
    done, begun = await run(msgspec.structs.replace(claimed(LOOP), deadline_ms=900))

    assert (done.outcome.state, done.has_begun, begun) == ("expired", False, [])
