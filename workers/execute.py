"""One job on one engine, and what becomes of it. Knows neither queue nor Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

from bitladder.contract import NO_BODY, Claimed, Outcome, Request, State, Usage
from bitladder.errors import EngineBusyError, EngineFaultError, EngineLostError
from bitladder.queue.job_record import inflate
from bitladder.queue.signing import Signer
from bitladder.rq_call import decode_call, named_model
from bitladder.script_constants import ALONE_FROM
from workers.clock import ServerClock
from workers.engines.base import Answer, Answers, OnChunk
from workers.output_check import fault_in


class Verdict(StrEnum):
    """What is to be done with a job after an execution."""

    FINISH = "finish"
    RETURN = "return"  # to the same queue, no attempt counted
    ESCALATE = "climb"  # one tier up, attempt counted
    SUSPECT = "suspect"  # to the same queue, no attempt counted; from now on in small company, then alone
    DEAD_LETTER = "dead_letter"  # over, and people should look at it


class UnfitError(Exception):
    """A job that no engine may see."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one execution."""

    verdict: Verdict
    outcome: Outcome  # final for FINISH; otherwise what it will be if this was the last attempt
    request: Request | None = None
    has_begun: bool = True  # False: nothing of it reached the engine, and it costs no attempt
    unsent: bytes = b""  # what is left of a streamed answer to be sent if that is delivered


async def execute(
    job: Claimed,
    engine: Answers,
    on_chunk: OnChunk,
    signer: Signer,
    *,
    clock: ServerClock,
    on_begin: Callable[[], None],
) -> Executed:
    """Run one job to a verdict; never raises for what the job or the engine did."""
    try:
        request = _read(job, signer)
    except UnfitError as error:
        outcome = _failed(error.status, error.code, str(error))
        return Executed(verdict=Verdict.DEAD_LETTER, outcome=outcome, has_begun=False)
    if (left_s := clock.seconds_until(job.deadline_ms)) is not None and left_s <= 0:
        return expired_waiting()
    on_begin()
    start, unsent = time.perf_counter(), b""
    try:
        async with asyncio.timeout(clock.seconds_until(job.deadline_ms)):
            answer = await engine.generate(request.endpoint, bytes(request.body), on_chunk if request.stream else None)
        outcome, verdict, unsent = _judged(answer), Verdict.FINISH, answer.unsent
    except TimeoutError:
        outcome, verdict = _late(job), Verdict.FINISH
    except EngineBusyError as error:
        outcome, verdict = _failed(503, "engine_busy", str(error)), Verdict.RETURN
    except EngineLostError as error:
        outcome, verdict = _lost(job, error)
    except EngineFaultError as error:
        outcome, verdict = _failed(502, "engine_fault", str(error)), Verdict.ESCALATE
    outcome = msgspec.structs.replace(outcome, run_ms=round((time.perf_counter() - start) * 1000, 1))
    return Executed(verdict=verdict, outcome=outcome, request=request, unsent=unsent)


def expired_waiting() -> Executed:
    """Return the end of a job whose deadline passed before the engine began it."""
    error = "the deadline passed while the job waited"
    outcome = Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error=error)
    return Executed(verdict=Verdict.FINISH, outcome=outcome, has_begun=False)


def with_chunks(done: Executed, count: int) -> Executed:
    """Return an execution that has sent so many chunks of its answer."""
    return msgspec.structs.replace(done, outcome=msgspec.structs.replace(done.outcome, chunks=count))


def degenerate_in(done: Executed) -> str | None:
    """Return what is wrong with a finished answer: loop, gibberish, empty, or None."""
    outcome, request = done.outcome, done.request
    if outcome.state is not State.FINISHED or request is None:
        return None
    return fault_in(outcome.answer or b"", bytes(request.body))


def _lost(job: Claimed, error: EngineLostError) -> tuple[Outcome, Verdict]:
    if job.suspicion < ALONE_FROM:
        return _failed(502, "engine_lost", str(error)), Verdict.SUSPECT
    message = f"the engine was lost while it ran this job alone, after losses in company: {error}"
    return _failed(500, "poison", message), Verdict.DEAD_LETTER


def _read(job: Claimed, signer: Signer) -> Request:
    if not signer.is_genuine(job.job_id, job.data, job.mac):
        message = "the job's signature does not fit: it was changed in Redis, or submitted without the key"
        raise UnfitError(500, "bad_signature", message)
    try:
        request = decode_call(inflate(job.data))
        model = named_model(request) if job.is_rq else None  # the intake has looked at its own
    except ValueError as error:
        raise UnfitError(500, "corrupt_job", f"the job cannot be read: {error}") from None
    if model is not None and model != job.model:
        raise UnfitError(422, "wrong_model", f"the body's model must be the queue's, {job.model!r}, got {model[:80]!r}")
    return request


def _late(job: Claimed) -> Outcome:
    code, error = "deadline_exceeded", "the deadline passed while the job ran"
    if job.timeout_s:
        code, error = "job_timeout", f"the job ran longer than its job_timeout of {job.timeout_s} s"
    return Outcome(state=State.EXPIRED, status=504, code=code, error=error)


def _judged(answer: Answer) -> Outcome:
    body = msgspec.Raw(answer.body) if answer.body else NO_BODY
    if answer.status != 200:
        return Outcome(
            state=State.FAILED,
            status=answer.status,
            body=body,
            code="refused_by_engine",
            error=f"the engine refused the request with status {answer.status}",
        )
    usage = Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
    ttft_ms = None if answer.ttft_s is None else round(answer.ttft_s * 1000, 1)
    return Outcome(state=State.FINISHED, status=200, body=body, ttft_ms=ttft_ms, usage=usage)


def _failed(status: int, code: str, message: str) -> Outcome:
    return Outcome(state=State.FAILED, status=status, code=code, error=message[:2000])
