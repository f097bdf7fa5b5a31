"""202: a job is queued, and where it is read, waited for and cancelled."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bitladder.contract import Submission
from bitladder.decision import describe_decision
from bitladder.queue.json_views.job import Features, Policy
from bitladder.queue.json_views.kinds import ModelName, TierName
from dispatcher.http.preferences import NO_PREFERENCES, Preferences
from dispatcher.http.responses import Response, json_response
from dispatcher.state import IntakeState

# Seconds that a client should leave between two polls.
POLL_AFTER_S = 1


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


def accepted_answer(
    state: IntakeState, job: Submission, job_id: str, preferences: Preferences = NO_PREFERENCES
) -> Response:
    """Return the answer for a job that is stored under `job_id`."""
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
    headers = {"Location": url, "Retry-After": str(POLL_AFTER_S), "X-Job-Id": job_id}
    return json_response(answer, 202, headers | preferences.applied(is_async=preferences.respond_async))
