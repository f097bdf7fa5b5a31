"""What awaited and streamed answers share: how long to wait, until the client disconnects, and what follows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome, Submission
from bitladder.decision import Decision
from bitladder.errors import BitladderError
from bitladder.ids import in_url
from dispatcher.http.problems import FINAL, problem
from dispatcher.http.responses import Response
from dispatcher.state import IntakeState
from dispatcher.submission import abandon

# A worker aborts a job at its deadline; its outcome takes a moment to arrive.
_DEADLINE_GRACE_S = 1.0

T = TypeVar("T")


def outcome_headers(job_id: str, outcome: Outcome) -> dict[str, str]:
    """Return the response headers that say how the answer came about."""
    headers = {
        "X-Job-Id": in_url(job_id),
        "X-Tier": outcome.tier,
        **(decision_headers(outcome.decision) if outcome.decision else {}),
        "X-Overflowed-From": outcome.overflowed_from,
        "X-Served-Below-Floor": "true" if outcome.served_below_floor else None,
        "X-Queue-Ms": f"{outcome.queue_ms:.1f}",
        "X-Cost": None if outcome.cost is None else f"{outcome.cost:.9f}",
        "X-Confidence": None if outcome.confidence is None else f"{outcome.confidence:.4f}",
    }
    return {name: value for name, value in headers.items() if value is not None}


def decision_headers(decision: Decision) -> dict[str, str]:
    """Return the response headers that say how the floor was chosen."""
    entropy = decision.score.entropy
    headers = {
        "X-Floor": decision.floor or None,
        "X-Entropy": None if entropy is None else f"{entropy:.4f}",
        "X-Policy": decision.label,
        "X-Route-Reason": decision.reason,
        "X-Canary-Of": decision.canary_of,
    }
    return {name: value for name, value in headers.items() if value is not None}


async def unless_gone(request: HttpRequest, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`, or None when the client closes the connection first."""
    task = asyncio.current_task()
    assert task  # noqa: S101  (a handler runs in a task)
    is_over = False  # a callback that is scheduled already cannot be removed

    def interrupt(gone: asyncio.Task[None]) -> None:
        if not (is_over or gone.cancelled()):
            task.cancel()

    gone = asyncio.create_task(_disconnected(request))
    gone.add_done_callback(interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone.done() or task.uncancel():  # another cancellation ends this task
            raise
        return None
    finally:
        is_over = True
        gone.cancel()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def record_served(state: IntakeState, job: Submission, outcome: Outcome, start: float) -> None:
    """Count a request whose client gets the outcome of its job."""
    tier = state.tier_of(job, outcome)
    state.capture.served(job.job_id, tier)
    state.waits.ended(job.job_id, outcome)
    state.metrics.served(job.model, tier, outcome.state).inc()
    exemplar = state.traces.heard(outcome) if state.traces else None
    seconds = time.perf_counter() - start
    state.metrics.awaited(job.model, tier).observe(seconds, exemplar)
    state.metrics.observe_entropy(job.request.decision, seconds)


def abandoned(state: IntakeState, job: Submission) -> Response:
    abandon(state, job)
    return problem(499, "the client closed the connection", "client_closed_request")


def await_timeout_s(state: IntakeState, job: Submission) -> float:
    """Return how long to wait: a moment beyond the job's deadline at most, even where no worker has claimed it."""
    max_s = state.settings.intake.await_timeout_s
    return max_s if job.deadline_ms is None else min(max_s, job.deadline_ms / 1000 + _DEADLINE_GRACE_S)


async def late_outcome(state: IntakeState, job_id: str) -> Outcome | None:
    """Return the outcome of a job at the end of the wait: one that was never claimed expires at its deadline."""
    with contextlib.suppress(BitladderError):
        await state.queue.expire(job_id)
        (answer,) = await state.queue.look([job_id])
        return answer if isinstance(answer, Outcome) else None
    return None


def not_in_time(state: IntakeState, job_id: str) -> Response:
    headers = {"X-Job-Id": in_url(job_id), "Location": state.job_url(job_id)} | FINAL
    return problem(504, late_message(state, job_id), "await_timeout", headers=headers)


def late_message(state: IntakeState, job_id: str) -> str:
    return f"the outcome did not come in time: GET {state.job_url(job_id)} shows the job"
