"""The routes of the engine (bitladder/endpoints.py), as its clients use them: await the answer, or stream it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome, State
from bitladder.endpoints import Endpoint
from bitladder.errors import IntakeClosingError
from bitladder.routing.accept import Accepted
from dispatcher.http.closing import moved
from dispatcher.http.preferences import Preferences, preferences_of
from dispatcher.http.problems import outcome_problem
from dispatcher.http.request_parts import read_bytes
from dispatcher.http.responses import Handler, Response
from dispatcher.idempotency import KeyInUseError, attaches, ended, in_use
from dispatcher.openai.accepted import accepted_answer
from dispatcher.openai.awaiting import (
    abandoned,
    await_timeout_s,
    late_outcome,
    not_in_time,
    outcome_headers,
    record_served,
    unless_gone,
)
from dispatcher.openai.event_forms import answer_with_service_tier
from dispatcher.openai.token_stream import stream_answer
from dispatcher.state import IntakeState, intake_state
from dispatcher.submission import route, submit


def completion_handler(endpoint: Endpoint) -> Handler:
    """Return the handler of one route."""

    async def handle(request: HttpRequest) -> Response:
        state = intake_state(request)
        if endpoint.row.method == "GET":
            body = _named_model(request, state)
        else:
            body = await read_bytes(request, state.settings.intake, state.closing)
        preferences = preferences_of(request, state.settings.intake.await_timeout_s)
        accepted = route(state, request, endpoint, body, reply=not preferences.respond_async)

        def written(job_id: str, outcome: Outcome) -> bytes:
            del job_id
            return answer_with_service_tier(endpoint, outcome.answer or b"", accepted.service_tier)

        return await answer_accepted(request, state, accepted, Form(written, stream_answer, preferences))

    return handle


class Form(NamedTuple):
    """How a route answers, and what its client prefers."""

    written: Callable[[str, Outcome], bytes]  # the answer of a job that finished
    streamed: Callable[[HttpRequest, IntakeState, Accepted], Awaitable[Response]]
    preferences: Preferences


async def answer_accepted(request: HttpRequest, state: IntakeState, accepted: Accepted, form: Form) -> Response:
    """Submit a job, and answer with its outcome, its tokens, or that it is queued."""
    is_async = form.preferences.respond_async
    if is_async and (accepted.stream or not form.preferences.wait_s):
        applied = msgspec.structs.replace(form.preferences, wait_s=None)
        return accepted_answer(state, accepted.submission, await submit(state, accepted), applied)
    if accepted.stream:
        return await form.streamed(request, state, accepted)
    return await _await_answer(request, state, _replied(state, accepted) if is_async else accepted, form)


def _replied(state: IntakeState, accepted: Accepted) -> Accepted:
    """Return a request that waits for its outcome, but need not be answered in time."""
    job = msgspec.structs.replace(accepted.submission, reply_to=state.inbox.channel)
    return msgspec.structs.replace(accepted, submission=job)


def _named_model(request: HttpRequest, state: IntakeState) -> bytes:
    """Return the body of a request that has none: the model that the query names, or the first one."""
    return msgspec.json.encode({"model": request.query_params.get("model") or next(iter(state.settings.models), "")})


async def _await_answer(request: HttpRequest, state: IntakeState, accepted: Accepted, form: Form) -> Response:
    start, job, preferences = time.perf_counter(), accepted.submission, form.preferences
    try:
        result = await unless_gone(request, _outcome(state, accepted, preferences, attaches(request, preferences)))
    except (IntakeClosingError, KeyInUseError) as error:
        if preferences.respond_async:
            return accepted_answer(state, job, error.job_id, preferences)
        if isinstance(error, KeyInUseError):
            return in_use(state, error)
        return moved(error.job_id, state.job_url(error.job_id), is_repeatable=bool(job.idempotency_key))
    if result is None:
        return abandoned(state, job)
    job_id, outcome = result
    outcome = outcome or await late_outcome(state, job_id)
    if outcome is None:
        is_async = preferences.respond_async
        return accepted_answer(state, job, job_id, preferences) if is_async else not_in_time(state, job_id)
    record_served(state, job, outcome, start)
    headers = outcome_headers(job_id, outcome) | preferences.applied(is_async=False)
    if outcome.state is not State.FINISHED or outcome.answer is None:
        return outcome_problem(outcome, headers)
    return Response(form.written(job_id, outcome), outcome.status, headers, media_type="application/json")


async def _outcome(
    state: IntakeState, accepted: Accepted, preferences: Preferences, waits: bool
) -> tuple[str, Outcome | None]:
    """Return the job that the request stands for, and its outcome; None: there is none in time.

    Raises:
        KeyInUseError: the first request with its idempotency key is still running, and this one does not wait for it.

    """
    job = accepted.submission
    timeout_s = await_timeout_s(state, job)
    timeout_s = min(timeout_s, preferences.wait_s or timeout_s)
    with state.inbox.opened(job.job_id, is_stream=False) as inbox:
        job_id = await submit(state, accepted)
        with state.closing.interrupts(job_id):
            if job_id == job.job_id:
                return job_id, await state.inbox.outcome(job_id, inbox, timeout_s)
            if waits:  # for the idempotency key's first job
                return job_id, await state.inbox.wait(job_id, timeout_s)
            return job_id, await ended(state, job_id)
