"""Execute one job on one engine, and give a verdict on what is to be done with it.

Reads the job's record (signature, compression, JSON), and calls neither Redis nor the queue: what it must know of them
comes from its caller, as functions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol

import msgspec
import structlog

from bitladder.contract import NO_BODY, Claimed, Outcome, Request, State, Usage
from bitladder.queue.job_record import inflate
from bitladder.queue.signing import Signer
from bitladder.rq_call import decode_call, named_model
from bitladder.script_constants import ALONE_FROM
from workers.clock import ServerClock
from workers.engines.base import Answer, Answers
from workers.engines.errors import EngineBusyError, EngineFaultError, EngineLostError, EnoughError
from workers.output_check import fault_in

log = structlog.get_logger()
# The code of a job whose request the engine refused, and of an execution whose answer was not sure enough.
REFUSED, LOW_CONFIDENCE = "refused_by_engine", "low_confidence"


class Verdict(StrEnum):
    """What is to be done with a job after an execution."""

    FINISH = "finish"  # store its outcome
    REQUEUE = "requeue"  # in the same queue, no attempt counted
    ESCALATE = "escalate"  # requeue one tier up, an attempt counted
    UNSURE = "unsure"  # requeue one tier up, with the answer that it has if it has a whole one, an attempt counted
    ISOLATE = "isolate"  # requeue in the same queue, no attempt counted; it runs isolated from now on
    DEAD_LETTER = "dead_letter"  # end it as a dead letter, for an operator to look at


class _UnfitError(Exception):
    """A job that must not reach any engine."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one execution."""

    verdict: Verdict
    outcome: Outcome  # final for FINISH; otherwise the job's outcome if this was its last attempt
    request: Request | None = None
    has_begun: bool = True  # False: the engine was not asked, and the execution costs no attempt
    degenerate: str | None = None  # what the output check found: loop, gibberish, empty


class _Stream(Protocol):
    """Takes the chunks of a streamed answer."""

    count: int  # of the chunks it has taken

    def begin(self, request: Request) -> None:
        """Note what is executed."""

    async def send(self, data: bytes) -> None:
        """Take the next chunk."""

    async def end(self, outcome: Outcome) -> Outcome:
        """Return the outcome with what there is to say of its stream."""


class _Judgement(Answers, Protocol):
    """The way to the engine for a job whose answer is judged: it may end with EnoughError."""

    request: Request  # it asks for what the judgement needs

    async def end(self, outcome: Outcome, run_s: float) -> tuple[Outcome, bool]:
        """Return the outcome as judged, and whether the job is to escalate."""


class _Judge(Protocol):
    """Judges answers for a cascade (workers/handling/cascading.py)."""

    def begin(self, job: Claimed, request: Request, engine: Answers) -> _Judgement | None:
        """Return the judgement of a job's answer; None where it is not judged."""


class Executor:
    """Executes the jobs of one worker. Without `can_escalate`, which answers for a job, output is not checked."""

    def __init__(
        self,
        signer: Signer,
        clock: ServerClock,
        can_escalate: Callable[[Claimed], Awaitable[bool]] | None = None,
        judge: _Judge | None = None,
    ) -> None:
        self._signer, self.clock, self._can_escalate, self._judge = signer, clock, can_escalate, judge

    async def execute(
        self,
        job: Claimed,
        engine: Answers,
        stream: _Stream,
        on_begin: Callable[[Request], None],
        on_end: Callable[[], None],
    ) -> Executed:
        """Run one job to a verdict; never raises for what the job or the engine did.

        `on_begin` is called before the engine is asked, `on_end` once it has nothing more to do with the job: what is
        left may wait for Redis.
        """
        try:
            request = _read(job, self._signer)
        except _UnfitError as error:
            outcome = _failed(error.status, error.code, str(error))
            return Executed(verdict=Verdict.DEAD_LETTER, outcome=outcome, has_begun=False)
        if (left_s := self.clock.seconds_until(job.deadline_ms)) is not None and left_s <= 0:
            return expired_in_queue()
        on_begin(request)
        start = time.perf_counter()
        judgement = self._judge and self._judge.begin(job, request, engine)
        asked = judgement.request if judgement else request
        outcome, verdict, unsent = await self._ask(job, asked, judgement or engine, stream)
        if judgement and outcome.code == REFUSED:  # perhaps for what was added to it
            judgement, (outcome, verdict, unsent) = None, await self._ask(job, request, engine, stream)
        on_end()
        run_ms = round((time.perf_counter() - start) * 1000, 1)
        degenerate = self._check(outcome, request)
        if degenerate and await self._is_to_escalate(job, degenerate, stream):
            outcome, verdict = _rejected(outcome, degenerate), Verdict.ESCALATE
        elif unsent:
            await stream.send(unsent)
        elif judgement:
            outcome, escalates = await judgement.end(outcome, run_ms / 1000)
            verdict = Verdict.UNSURE if escalates else verdict
        if request.stream:
            outcome = await stream.end(outcome)
        outcome = msgspec.structs.replace(outcome, run_ms=run_ms)
        return Executed(verdict=verdict, outcome=outcome, request=request, degenerate=degenerate)

    async def _ask(
        self, job: Claimed, request: Request, engine: Answers, stream: _Stream
    ) -> tuple[Outcome, Verdict, bytes]:
        """Return outcome and verdict by the engine's answer, and the chunks of it that are not sent yet."""
        on_chunk = None
        if request.stream:
            stream.begin(request)
            on_chunk = stream.send
        try:
            async with asyncio.timeout(self.clock.seconds_until(job.deadline_ms)):
                answer = await engine.generate(request.endpoint, bytes(request.body), on_chunk)
        except TimeoutError:
            return _expired_running(job), Verdict.FINISH, b""
        except EngineBusyError as error:
            return _failed(503, "engine_busy", str(error)), Verdict.REQUEUE, b""
        except EngineLostError as error:
            return *_lost(job, error), b""
        except EngineFaultError as error:
            return _failed(502, "engine_fault", str(error)), Verdict.ESCALATE, b""
        except EnoughError as error:
            return _failed(502, LOW_CONFIDENCE, str(error)), Verdict.UNSURE, b""
        return _outcome_of(answer), Verdict.FINISH, answer.unsent

    def _check(self, outcome: Outcome, request: Request) -> str | None:
        is_text = request.endpoint.generates and outcome.state is State.FINISHED
        if self._can_escalate is None or not is_text:
            return None
        return fault_in(outcome.answer or b"", bytes(request.body))

    async def _is_to_escalate(self, job: Claimed, kind: str, stream: _Stream) -> bool:
        """Return whether a degenerate answer is withheld: a higher tier can try, and no reader has seen any of it."""
        is_escalated = self._can_escalate is not None and not stream.count and await self._can_escalate(job)
        log.warning("degenerate answer", job_id=job.job_id, kind=kind, delivered=not is_escalated)
        return is_escalated


def expired_in_queue() -> Executed:
    """Return the end of a job whose deadline passed before the engine began it."""
    error = "the deadline passed while the job waited"
    outcome = Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error=error)
    return Executed(verdict=Verdict.FINISH, outcome=outcome, has_begun=False)


def _read(job: Claimed, signer: Signer) -> Request:
    if not signer.is_genuine(job.job_id, job.data, job.mac):
        message = "the job's signature does not fit: it was changed in Redis, or submitted without the key"
        raise _UnfitError(500, "bad_signature", message)
    try:
        request = decode_call(inflate(job.data))
        model = named_model(request) if job.is_rq else None  # the intake has checked the jobs that it submitted
    except ValueError as error:
        raise _UnfitError(500, "corrupt_job", f"the job cannot be read: {error}") from None
    if model is not None and model != job.model:
        raise _UnfitError(
            422, "wrong_model", f"the body's model must be the queue's, {job.model!r}, got {model[:80]!r}"
        )
    return request


def _outcome_of(answer: Answer) -> Outcome:
    body = msgspec.Raw(answer.body) if answer.body else NO_BODY
    if answer.status != 200:
        return Outcome(
            state=State.FAILED,
            status=answer.status,
            body=body,
            code=REFUSED,
            error=f"the engine refused the request with status {answer.status}",
        )
    usage = Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
    ttft_ms = None if answer.ttft_s is None else round(answer.ttft_s * 1000, 1)
    return Outcome(state=State.FINISHED, status=200, body=body, ttft_ms=ttft_ms, usage=usage)


def _rejected(outcome: Outcome, kind: str) -> Outcome:
    return msgspec.structs.replace(
        outcome,
        state=State.FAILED,
        status=502,
        body=NO_BODY,
        code="degenerate_output",
        error=f"the answer was degenerate: {kind}",
    )


def _expired_running(job: Claimed) -> Outcome:
    code, error = "deadline_exceeded", "the deadline passed while the job ran"
    if job.timeout_s:
        code, error = "job_timeout", f"the job ran longer than its job_timeout of {job.timeout_s} s"
    return Outcome(state=State.EXPIRED, status=504, code=code, error=error)


def _lost(job: Claimed, error: EngineLostError) -> tuple[Outcome, Verdict]:
    if job.crash_count < ALONE_FROM:
        return _failed(502, "engine_lost", str(error)), Verdict.ISOLATE
    message = f"the engine was lost while it ran this job alone, as it had been beside others: {error}"
    return _failed(500, "poison", message), Verdict.DEAD_LETTER


def _failed(status: int, code: str, message: str) -> Outcome:
    return Outcome(state=State.FAILED, status=status, code=code, error=message[:2000])
