"""What awaited and streamed answers share: how long to wait, for whom, and what is said when it was too long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome, Submission
from bitladder.errors import BitladderError
from bitladder.ids import in_url
from dispatcher.problems import FINAL, problem
from dispatcher.responses import Response
from dispatcher.state import IntakeState
from dispatcher.submission import abandon

# A worker aborts a job at its deadline, and says so a moment later.
DEADLINE_GRACE_S = 1.0

T = TypeVar("T")


def outcome_headers(job_id: str, outcome: Outcome) -> dict[str, str]:
    """Return how the answer came about, for the response headers."""
    headers = {
        "X-Job-Id": in_url(job_id),
        "X-Tier": outcome.tier,
        "X-Floor": outcome.floor,
        "X-Entropy": None if outcome.entropy is None else f"{outcome.entropy:.4f}",
        "X-Overflowed-From": outcome.overflowed_from,
        "X-Queue-Ms": f"{outcome.queue_ms:.1f}",
        "X-Route-Reason": outcome.reason,
    }
    return {name: value for name, value in headers.items() if value is not None}


async def unless_gone(request: HttpRequest, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`, or None when the client closes the connection first."""
    mine = asyncio.current_task()
    assert mine  # noqa: S101  (a endpoint runs in a task)
    is_over = False  # a callback that is due already cannot be removed any more

    def interrupt(gone: asyncio.Task[None]) -> None:
        if not (is_over or gone.cancelled()):
            mine.cancel()

    gone = asyncio.create_task(_disconnected(request))
    gone.add_done_callback(interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone.done() or mine.uncancel():  # somebody else wants this task to end
            raise
        return None
    finally:
        is_over = True
        gone.cancel()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def record_served(state: IntakeState, job: Submission, outcome: Outcome, start: float) -> None:
    """Count a request whose client was told how its job ended."""
    tier = state.tier_of(job, outcome)
    state.capture.served(job.job_id, tier)
    state.metrics.served(job.model, tier, outcome.state).inc()
    state.metrics.awaited(job.model, tier).observe(time.perf_counter() - start)


def abandoned(state: IntakeState, job: Submission) -> Response:
    abandon(state, job)
    return problem(499, "the client closed the connection", "client_closed_request")


def await_timeout_s(state: IntakeState, job: Submission) -> float:
    """Return how long to wait: not for a job whose deadline has passed, though no worker may have looked at it."""
    max_s = state.settings.intake.await_timeout_s
    return max_s if job.deadline_ms is None else min(max_s, job.deadline_ms / 1000 + DEADLINE_GRACE_S)


async def late_outcome(state: IntakeState, job_id: str) -> Outcome | None:
    """Return what became of a job that was awaited long enough: one that nobody looked at ends with its deadline."""
    with contextlib.suppress(BitladderError):
        await state.queue.expire(job_id)
        (found,) = await state.queue.look([job_id])
        return found if isinstance(found, Outcome) else None
    return None


def not_in_time(state: IntakeState, job_id: str) -> Response:
    headers = {"X-Job-Id": in_url(job_id), "Location": state.job_url(job_id)} | FINAL
    return problem(504, late_message(state, job_id), "await_timeout", headers=headers)


def late_message(state: IntakeState, job_id: str) -> str:
    return f"no outcome in time: GET {state.job_url(job_id)} says what becomes of the job"
