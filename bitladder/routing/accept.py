"""Accept one request: read -> score -> policy -> submission. READ THIS FIRST: the endpoints are thin around it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
import uuid_utils

from bitladder.contract import DEFAULT_TENANT, Endpoint, Envelope, Lane, QueueName, Request, Submission
from bitladder.errors import NotFoundError, RequestError
from bitladder.routing.body import prompt_bytes, read_body
from bitladder.routing.envelope import LatencyBudget, read_envelope, read_latency_budget
from bitladder.routing.features import byte_entropy
from bitladder.routing.policies.article import choose_route
from bitladder.settings.sections import Settings

_MAX_KEY_CHARS = 255


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, as far as routing needs it."""

    endpoint: Endpoint
    body: bytes
    headers: Mapping[str, str]  # lower-case names
    request_id: str
    lane: Lane | None = None  # /v1/jobs may name one
    tenant: str = DEFAULT_TENANT  # whose job it is
    max_of_tenant: int = 0  # see Submission


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A submission that is ready for the queue, and what its endpoint must know."""

    submission: Submission
    envelope: Envelope
    stream: bool
    latency_budget: LatencyBudget


def accept(incoming: Incoming, settings: Settings, *, reply_to: str = "") -> Accepted:
    """Turn one request into a submission.

    Raises:
        RequestError: the body or a header is wrong.
        NotFoundError: there is no such model.

    """
    body = read_body(incoming.endpoint, incoming.body)
    if body.model not in settings.models:
        raise NotFoundError(
            f"the model {body.model[:80]!r} does not exist; there is {', '.join(settings.models)}",
            param="model",
        )
    envelope = msgspec.structs.replace(read_envelope(incoming.headers), lane=incoming.lane)
    entropy = round(byte_entropy(prompt_bytes(body)), 4)
    route = choose_route(entropy, envelope, settings.model(body.model).ladder, settings.policy, settings.lanes)
    request = Request(
        endpoint=incoming.endpoint,
        body=msgspec.Raw(incoming.body),
        floor=route.floor,
        ceiling=route.ceiling,
        priority=envelope.priority,
        entropy=entropy,
        reason=route.reason,
        stream=bool(body.stream),
        request_id=incoming.request_id,
        tenant=incoming.tenant,
    )
    key = _idempotency_key(incoming.headers, incoming.tenant)
    submission = Submission(
        job_id=str(uuid_utils.uuid7()),
        model=body.model,
        queue=str(QueueName(body.model, route.floor, route.lane, route.ceiling)),
        request=request,
        deadline_ms=envelope.deadline_ms,
        reply_to=reply_to,
        idempotency_key=key,
        fingerprint=hashlib.sha256(incoming.body).hexdigest()[:32] if key else "",
        max_of_tenant=incoming.max_of_tenant,
    )
    latency_budget = _latency_budget(incoming, submission, settings)
    return Accepted(submission=submission, envelope=envelope, stream=request.stream, latency_budget=latency_budget)


def _latency_budget(incoming: Incoming, job: Submission, settings: Settings) -> LatencyBudget:
    await_timeout_s = settings.intake.await_timeout_s if job.reply_to else None
    return read_latency_budget(
        incoming.headers, job.deadline_ms, stream=job.request.stream, await_timeout_s=await_timeout_s
    )


def _idempotency_key(headers: Mapping[str, str], tenant: str) -> str:
    """Return the client's key behind its tenant's name: nobody meets, or finds out, the key of another tenant."""
    key = headers.get("idempotency-key", "").strip().strip('"')
    if len(key) > _MAX_KEY_CHARS or not key.isascii():
        raise RequestError(
            f"Idempotency-Key must be at most {_MAX_KEY_CHARS} ASCII characters", param="Idempotency-Key"
        )
    return f"{tenant}:{key}" if key else ""
