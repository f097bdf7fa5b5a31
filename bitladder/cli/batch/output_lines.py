"""The lines of an output file, in the form of OpenAI's batches: how they are written and read again. Pure.

A line's id ends with its job's: run, line number and attempt are read from it, so an output is a journal of its run.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bitladder.contract import Outcome, State
from bitladder.errors import BitladderError
from bitladder.ids import numbered_id
from bitladder.queue.json_views.batch_line import LineError, LineResponse, ResultLine
from bitladder.queue.json_views.problem import problem_body

_ID = "batch_req_"


class Written(NamedTuple):
    """What a line of an output says of its request."""

    number: int  # of the line in the input
    attempt: int
    reason: str  # why it has no answer; '' where it has


_decode = msgspec.json.Decoder(ResultLine).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_error = msgspec.json.Decoder(dict[str, object]).decode


def output_line(job_id: str, custom_id: str, outcome: Outcome | BitladderError) -> bytes:
    """Return the line of one request, with its end.

    As OpenAI has it, `response` is the answer over HTTP, an error's too; `error` says why there is none.
    """
    response, error = _parts(job_id, outcome)
    return ResultLine(id=_ID + job_id, custom_id=custom_id, response=response, error=error).encoded()


def read_output_line(line: bytes, run: str) -> Written:
    """Read a line that a run has written.

    Raises:
        ValueError: it is another's.

    """
    read = _decode(line)
    start, _, rest = read.id.removeprefix(_ID).rpartition("-")
    number, _, attempt = rest.partition(".")
    written = Written(int(number), int(attempt or 1), _reason(read))
    if start != run or read.id != _ID + numbered_id(run, written.number, written.attempt):
        raise ValueError(f"its id must begin with {_ID}{run}, got {read.id[:80]!r}")
    return written


def _parts(job_id: str, outcome: Outcome | BitladderError) -> tuple[LineResponse | None, LineError | None]:
    if isinstance(outcome, Outcome):
        if outcome.state in (State.CANCELLED, State.EXPIRED):
            return None, LineError(
                code=outcome.code or outcome.state, message=outcome.error or f"the job is {outcome.state}"
            )
        body = outcome.answer or problem_body(
            outcome.status, outcome.error or "the job did not finish", outcome.code or outcome.state
        )
        return LineResponse(
            status_code=outcome.status, request_id=outcome.request_id or job_id, body=msgspec.Raw(body)
        ), None
    if outcome.status in (404, 410) and outcome.code in ("not_found", "result_expired"):  # the job's record is gone
        return None, LineError(code=outcome.code, message=outcome.message)
    body = problem_body(outcome.status, outcome.message, outcome.code, getattr(outcome, "param", None))
    return LineResponse(status_code=outcome.status, request_id=job_id, body=msgspec.Raw(body)), None


def _reason(line: ResultLine) -> str:
    """Return why a request has no answer: an error's code, or its status."""
    if line.response is None:
        return (line.error and line.error.code) or "no_answer"
    if line.response.status_code < 400:
        return ""
    try:
        code = _decode_error(_decode_fields(line.response.body)["error"]).get("code")
    except (msgspec.DecodeError, KeyError):
        code = None
    return code if isinstance(code, str) and code else f"status_{line.response.status_code}"
