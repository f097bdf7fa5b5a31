"""The lines of a batch's output and error files, as OpenAI has them. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bitladder.contract import NO_BODY, Outcome, State
from bitladder.errors import BitladderError
from bitladder.queue.json_views.batch_line import LineError, LineResponse, ResultLine
from bitladder.queue.json_views.problem import problem_body
from bitladder.queue_name import Lane
from bitladder.routing.aliases import used_service_tier
from bitladder.routing.body import with_field
from bitladder.script_constants import BATCH_PREFIX
from dispatcher.batch.batch_state import Tokens

# What became of lines that were not run, by how their batch ended.
EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"
_MESSAGES = {
    EXPIRED: "This request could not be executed before the completion window expired.",
    CANCELLED: "This request was not executed, because the batch was cancelled.",
}


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of a batch, as its result names it."""

    batch_id: str
    number: int  # in the input file, from 1
    position: int  # in the order in which lines run, from 0
    custom_id: str

    @property
    def job_id(self) -> str:
        """The id of its job: a runner that submits the line again submits the same job."""
        return f"{self.batch_id}-{self.number}"


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _EngineUsage(msgspec.Struct, frozen=True):
    """What engines say of tokens, by the names of completions or of responses."""

    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Tier(msgspec.Struct, frozen=True):
    service_tier: str = ""


class _Answer(msgspec.Struct, frozen=True):
    usage: _EngineUsage | None = None


_read_tier = msgspec.json.Decoder(_Tier).decode
_read_answer = msgspec.json.Decoder(_Answer).decode


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of a line."""

    line: Line
    is_answer: bool  # it belongs into the output file; else into that of errors
    data: bytes  # the line, with its end
    tokens: Tokens | None = None
    is_expired: bool = False  # the window closed before it had run


def outcome_result(line: Line, outcome: Outcome, unrun: str, service_tier: str = "") -> Result:
    """Return the result of a line whose job has ended; `unrun`: what a cancelled job means, where its batch ends."""
    if outcome.state is State.EXPIRED or outcome.code == "deadline_exceeded":
        return unrun_result(line, EXPIRED)
    if unrun and outcome.state is State.CANCELLED:
        return unrun_result(line, unrun)
    is_answer = outcome.state is State.FINISHED and outcome.answer is not None
    body = bytes(outcome.body)
    if is_answer and service_tier:
        body = with_field(body, "service_tier", service_tier)
    elif not is_answer and outcome.answer is None:
        message, code = outcome.error or "the job did not finish", outcome.code or outcome.state
        body = problem_body(outcome.status, message, code)
    return Result(
        line=line,
        is_answer=is_answer,
        data=_line(line, outcome.status, body),
        tokens=_tokens(outcome) if is_answer else None,
    )


def batch_service_tier(body: bytes) -> str:
    """Return the service tier that a line's answer shows; '' where the line names none."""
    if b'"service_tier"' not in body:
        return ""
    try:
        requested = _read_tier(body).service_tier
    except msgspec.DecodeError:  # it will be refused
        return ""
    return requested and used_service_tier(requested, Lane.BATCH)


def refused_result(line: Line, error: BitladderError) -> Result:
    """Return the result of a line that was refused before it was a job."""
    body = problem_body(error.status, error.public or error.message, error.code, getattr(error, "param", None))
    return Result(line=line, is_answer=False, data=_line(line, error.status, body))


def unrun_result(line: Line, code: str) -> Result:
    """Return the result of a line that was not run."""
    error = LineError(code=code, message=_MESSAGES[code])
    data = ResultLine(id=_id(line), custom_id=line.custom_id, response=None, error=error).encoded()
    return Result(line=line, is_answer=False, data=data, is_expired=code == EXPIRED)


def add_tokens(tokens: Tokens, results: Sequence[Result]) -> Tokens:
    """Return the tokens of a batch with those of more results."""
    for result in results:
        if more := result.tokens:
            tokens = Tokens(
                prompt=tokens.prompt + more.prompt,
                completion=tokens.completion + more.completion,
                cached=tokens.cached + more.cached,
                reasoning=tokens.reasoning + more.reasoning,
            )
    return tokens


def _line(line: Line, status: int, body: bytes) -> bytes:
    raw = msgspec.Raw(body) if body else NO_BODY
    response = LineResponse(status_code=status, request_id=line.job_id, body=raw)
    return ResultLine(id=_id(line), custom_id=line.custom_id, response=response, error=None).encoded()


def _id(line: Line) -> str:
    return f"batch_req_{line.batch_id.removeprefix(BATCH_PREFIX)}_{line.number}"


def _tokens(outcome: Outcome) -> Tokens:
    cached = reasoning = 0
    try:
        usage = _read_answer(bytes(outcome.body)).usage
    except msgspec.DecodeError:  # of another form than OpenAI's: the counts stay
        usage = None
    if usage:
        before, behind = (
            usage.prompt_tokens_details or usage.input_tokens_details,
            usage.completion_tokens_details or usage.output_tokens_details,
        )
        cached = (before and before.cached_tokens) or 0
        reasoning = (behind and behind.reasoning_tokens) or 0
    return Tokens(
        prompt=outcome.usage.prompt_tokens,
        completion=outcome.usage.completion_tokens,
        cached=cached,
        reasoning=reasoning,
    )
