"""POST /v1/jobs: submit now, read the outcome later."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.decision import describe_decision
from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.queue.json_views.job import Features, Policy
from bitladder.queue.json_views.kinds import ModelName, TierName
from bitladder.queue_name import Lane
from bitladder.routing.body import endpoint_for, fields_of
from dispatcher.http.request_parts import read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.jobs.existing_jobs import POLL_AFTER_S
from dispatcher.state import intake_state
from dispatcher.submission import route, submit


class JobUrls(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job is read, waited for and cancelled, and its tokens are."""

    job: str = msgspec.field(name="self")
    wait: str
    cancel: str
    stream: str | msgspec.UnsetType = msgspec.UNSET  # of a job with "stream": true


class AcceptedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is queued."""

    id: str
    object: Literal["job"] = "job"
    status: Literal["queued"] = "queued"
    model: ModelName
    floor: TierName
    ceiling: TierName | None
    queue: str
    reason: str
    entropy: Annotated[float, msgspec.Meta(ge=0, le=8)] | None
    policy: Policy
    features: Features
    urls: JobUrls


async def submit_job(request: HttpRequest) -> Response:
    """Accept a completion or chat body, recognised by its fields; `endpoint` and `lane` may be query parameters."""
    state = intake_state(request)
    body = await read_bytes(request, state.settings.intake, state.closing)
    accepted = route(state, request, endpoint_of(request, body), body, lane=lane_of_query(request))
    job = accepted.submission
    job_id = await submit(state, accepted)
    url = state.job_url(job_id)
    tokens = state.stream_url(job_id) if job.request.stream else msgspec.UNSET
    answer = AcceptedJob(
        id=job_id,
        model=job.model,
        ceiling=job.request.ceiling,
        queue=job.queue,
        **describe_decision(job.request.decision),
        urls=JobUrls(job=url, wait=f"{url}?wait=30", cancel=url, stream=tokens),
    )
    return json_response(answer, 202, {"Location": url, "Retry-After": str(POLL_AFTER_S), "X-Job-Id": job_id})


def endpoint_of(request: HttpRequest, body: bytes) -> Endpoint:
    """Return the endpoint that the query names, or that the body is for."""
    raw = request.query_params.get("endpoint")
    if raw is None:
        return endpoint_for(fields_of(body))
    try:
        return Endpoint(raw)
    except ValueError:
        raise RequestError(
            f"endpoint must be one of {', '.join(Endpoint)}, got {raw[:80]!r}", param="endpoint"
        ) from None


def lane_of_query(request: HttpRequest) -> Lane | None:
    """Return the lane that the query names."""
    raw = request.query_params.get("lane")
    try:
        return Lane(raw) if raw is not None else None
    except ValueError:
        raise RequestError(f"lane must be one of {', '.join(Lane)}, got {raw!r:.80}", param="lane") from None
