"""POST /v1/responses: await the answer, stream it, or let it run in the background."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome, State
from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError, TooLargeError
from bitladder.routing.accept import Accepted
from dispatcher.http.preferences import preferences_of
from dispatcher.http.request_parts import read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.openai.completions import Form, answer_accepted
from dispatcher.openai.responses.create_options import CreateOptions, engine_body, read_options
from dispatcher.openai.responses.record import StoredResponse, encoded, new_job_id
from dispatcher.openai.responses.record_fields import is_genuine
from dispatcher.openai.responses.response_stream import follow_events, stream_response
from dispatcher.openai.responses.stored import find_response
from dispatcher.state import IntakeState, intake_state
from dispatcher.submission import incoming_of, route_request, submit


class PreviousResponseError(RequestError):
    """There is no response to continue, in OpenAI's words: its clients know the code."""

    code = "previous_response_not_found"


class UnfinishedResponseError(RequestError):
    """A response that has not ended cannot be continued. OpenAI's libraries try again by themselves."""

    status = 409
    code = "response_in_progress"


async def create_response(request: HttpRequest) -> Response:
    """Accept a request for a response."""
    state = intake_state(request)
    body = await read_bytes(request, state.settings.intake, state.closing)
    options = read_options(body)
    earlier = None
    if options.previous_response_id is not None:
        earlier = await earlier_items(request, state, options.previous_response_id)
    preferences = preferences_of(request, state.settings.intake.await_timeout_s)
    is_awaited = not (options.background or preferences.respond_async)
    sent = Sent(body, engine_body(body, options, earlier))
    accepted = accepted_response(request, state, options, sent, is_awaited=is_awaited)
    if options.background:
        return await _in_background(state, accepted)

    def written(job_id: str, outcome: Outcome) -> bytes:
        job = accepted.submission
        return encoded(StoredResponse(job_id, job.request, job.queue).ended(outcome))

    return await answer_accepted(request, state, accepted, Form(written, stream_response, preferences))


class Sent(NamedTuple):
    """A body as the client sent it, and as the engine gets it."""

    client: bytes
    engine: bytes


def accepted_response(
    request: HttpRequest, state: IntakeState, options: CreateOptions, sent: Sent, *, is_awaited: bool
) -> Accepted:
    """Route a request for a response."""
    limit, size = state.settings.intake.max_body_bytes, len(sent.engine)
    if size > limit and options.previous_response_id is not None:
        raise TooLargeError(
            f"with the items of previous_response_id the body must be at most {limit} bytes ([intake].max_body_bytes), "
            f"got {size}: begin a new conversation, or send fewer items as input",
            param="previous_response_id",
        )
    incoming = msgspec.structs.replace(
        incoming_of(state, request, Endpoint.RESPONSES, sent.engine, options.lane),
        as_sent=sent.client,
        job_id=new_job_id(is_stored=options.is_stored),
        response=options.kept,
        deadline_ms=options.deadline_ms,
        continuation_id=options.continuation_id,
    )
    return route_request(state, request, incoming, reply=is_awaited)


async def _in_background(state: IntakeState, accepted: Accepted) -> Response:
    job = accepted.submission
    job_id = await submit(state, accepted)
    response = StoredResponse(job_id, job.request, job.queue)
    if accepted.stream:
        return follow_events(state, response)
    view = await state.view(job_id) if job_id != job.job_id else None  # the idempotency key's first job
    shown = response.of_state(view.state, view.outcome) if view else response.of_state(State.QUEUED, None)
    return json_response(shown, headers={"X-Job-Id": job_id})


async def earlier_items(request: HttpRequest, state: IntakeState, response_id: str) -> list[Any]:
    """Return the items of a response that is continued: what its engine got and what it answered.

    Raises:
        PreviousResponseError: there is none, it is another tenant's, or it was not stored.
        UnfinishedResponseError: it has not ended.

    """
    continued = await find_response(request, state, response_id)
    if continued is None or not await is_genuine(state.queue, response_id):
        raise PreviousResponseError(
            f"Previous response with id '{response_id[:80]}' not found.", param="previous_response_id"
        )
    view, response = continued
    if not view.outcome:
        raise UnfinishedResponseError(
            f"Previous response with id '{response_id}' is {response.of_state(view.state, None)['status']}: it can be "
            "continued once it has ended",
            param="previous_response_id",
        )
    return [*response.input_items(), *response.output_items(view.outcome)]
