"""Errors as OpenAI's clients expect them: {"error": {message, type, param, code}}."""

from __future__ import annotations

from bitladder.contract import Outcome
from bitladder.queue.json_views.problem import problem_body
from dispatcher.http.responses import Response

# For an answer that a retry would not change.
FINAL = {"X-Should-Retry": "false"}


def problem(
    status: int, message: str, code: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return one error."""
    return Response(problem_body(status, message, code, param), status, headers, media_type="application/json")


def outcome_problem(outcome: Outcome, headers: dict[str, str]) -> Response:
    """Return the error of a job that did not finish for the client that awaits it: the engine's own where there is one.

    The job is terminal, after all its attempts. OpenAI's clients repeat 408, 409, 429 and 5xx by themselves: each
    repeat would be a new job with attempts of its own.
    """
    headers = headers | FINAL
    if outcome.answer is not None:
        return Response(outcome.answer, outcome.status, headers, media_type="application/json")
    message, code = outcome.error or "the job did not finish", outcome.code or outcome.state
    return problem(outcome.status, message, code, headers=headers)
