"""A dead letter as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from bitladder.endpoints import Endpoint
from bitladder.ids import readable
from bitladder.queue.dead_letters import DeadLetter, DeadLetterHead, Loss
from bitladder.queue.json_views.job import JobFields, job_fields
from bitladder.queue.json_views.kinds import Timestamp
from bitladder.queue.untrusted import short


class DeadLetterEntry(JobFields, frozen=True, kw_only=True):
    """A dead letter; with the fields of a job where its record is still there."""

    dead_lettered_at: Timestamp
    code: str


class LostExecution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a job that failed or was lost."""

    at: Timestamp
    worker: str
    execution: int
    tier: str | None
    code: str | None
    error: str | None


_BODY = "The OpenAI body as the client sent it, prompt included."


class DeadLetterRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the client asked for, so that an operator sees what broke."""

    endpoint: Endpoint
    tenant: str
    priority: int
    stream: bool
    body: Annotated[msgspec.Raw, msgspec.Meta(description=_BODY)]


class DeadLetterWithHistory(DeadLetterEntry, frozen=True, kw_only=True):
    """A dead letter with its request, null where it cannot be read, and all executions that failed or were lost."""

    request: DeadLetterRequest | None
    history: list[LostExecution]


def describe_dead_letter(job: DeadLetter) -> DeadLetterEntry:
    return DeadLetterEntry(**_dead_letter_fields(job))


def describe_history(job: DeadLetter, losses: Sequence[Loss]) -> DeadLetterWithHistory:
    return DeadLetterWithHistory(
        **_dead_letter_fields(job), request=_describe_request(job), history=describe_losses(losses)
    )


def describe_losses(losses: Sequence[Loss]) -> list[LostExecution]:
    return [_describe_loss(loss) for loss in losses]


def count_by_code(jobs: Sequence[DeadLetterHead]) -> dict[str, int]:
    """Return how many jobs ended with each error code, the most frequent first."""
    return dict(Counter(job.code for job in jobs).most_common())


def _dead_letter_fields(job: DeadLetter) -> dict[str, Any]:
    fields = job_fields(job.view) if job.view else {}
    return fields | {"id": readable(job.job_id), "dead_lettered_at": job.at_ms / 1000, "code": job.code}


def _describe_request(job: DeadLetter) -> DeadLetterRequest | None:
    request = job.view.request if job.view else None
    if request is None:
        return None
    return DeadLetterRequest(
        endpoint=request.endpoint,
        tenant=short(request.tenant),
        priority=request.priority,
        stream=request.stream,
        body=request.body,
    )


def _describe_loss(loss: Loss) -> LostExecution:
    outcome = loss.outcome
    return LostExecution(
        at=loss.at_ms / 1000,
        worker=loss.worker,
        execution=loss.fence,
        tier=outcome.tier if outcome else None,
        code=outcome.code if outcome else None,
        error=outcome.error if outcome else None,
    )
