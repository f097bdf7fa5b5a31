"""Accept one request: read -> score -> decide -> submission. READ THIS FIRST: the endpoints only wrap it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence

import msgspec
import uuid_utils

from bitladder.contract import Request, ResponseOptions, Submission
from bitladder.decision import Decision
from bitladder.endpoints import Endpoint, Errors
from bitladder.errors import RequestError
from bitladder.queue_name import DEFAULT_TENANT, Lane, QueueName
from bitladder.routing.aliases import quantizations_of, service_lane, used_service_tier
from bitladder.routing.body import Body, for_engine, max_tokens, prefix_of, prompt_bytes, read_body
from bitladder.routing.candidate import DrawEnd, Drawn, is_drawn, names_lacking_tier
from bitladder.routing.constraints import Constraints, constraints_of, lane_of
from bitladder.routing.cost import Curves
from bitladder.routing.envelope import Aliases, Envelope, read_envelope
from bitladder.routing.features import score_prompt
from bitladder.routing.max_cost import costs_of, within_cost
from bitladder.routing.notes import labels_of
from bitladder.routing.policies import Policies
from bitladder.routing.policies.interface import Policy, Requester
from bitladder.settings.access import NO_RULES, KeyRules
from bitladder.settings.models_section import CanarySettings, ModelChoice
from bitladder.settings.sections import Settings
from bitladder.settings.worker_section import CascadeSettings

_MAX_KEY_CHARS = 255
_NO_COSTS: Mapping[str, float | None] = {}


def _unknown(model: str, tiers: Sequence[str]) -> bool:
    """Say that no worker is known to be live."""
    del model, tiers
    return False


class Incoming(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One HTTP request, as far as routing needs it."""

    endpoint: Endpoint
    body: bytes
    headers: Mapping[str, str]  # lower-case names
    request_id: str
    lane: Lane | None = None  # /v1/jobs may name one
    tenant: str = DEFAULT_TENANT  # whose job it is
    max_of_tenant: int = 0  # see Submission
    payer: str = ""  # see Request
    curves: Mapping[str, Curves] = {}  # what was measured of each model's tiers: what a request is expected to cost
    key_name: str = ""  # of the API key that came with it
    weight: int = 1  # of the tenant
    rules: KeyRules = NO_RULES  # the defaults and limits of that key
    job_id: str = ""  # that its sender has chosen; '': a new one
    response: ResponseOptions | None = None  # see Request
    deadline_ms: int | None = None  # beside the one of its headers; the earlier one counts
    continuation_id: str = ""  # names its prefix
    has_worker: Callable[[str, Sequence[str]], bool] = _unknown  # whether one of a model's tiers has a live worker
    as_sent: bytes = b""  # the body as the client sent it, by which repeats are known; b'': it is the same


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A submission that is ready for the queue, the constraints that its client set, and who decided within them."""

    submission: Submission
    envelope: Envelope
    constraints: Constraints
    policy: Policy
    drawn: Drawn | None = None  # for a candidate

    @property
    def stream(self) -> bool:
        """Whether the client reads the tokens as they come."""
        return self.submission.request.stream

    @property
    def service_tier(self) -> str:
        """The service tier that the answer shows; '' where the request had none."""
        requested = self.envelope.service_tier
        return requested and used_service_tier(requested, QueueName.parse(self.submission.queue).lane)


def accept(incoming: Incoming, settings: Settings, *, reply_to: str = "") -> Accepted:
    """Turn one request into a submission.

    Raises:
        RequestError: the body or a header is wrong, or it would cost more than it may.
        ModelNotFoundError: there is no such model or tier.

    """
    body = read_body(incoming.endpoint, incoming.body)
    choice = settings.choice(body.model)
    envelope = read_envelope(
        incoming.headers,
        lane=incoming.lane,
        stream=body.is_streamed,
        await_timeout_s=settings.intake.await_timeout_s if reply_to else None,
        aliases=_aliases(body),
        key=incoming.rules,
    )
    if envelope.cascade or settings.cascade.calibration:
        envelope = msgspec.structs.replace(envelope, cascade=_cascades(envelope, body, settings.cascade))
    canary = settings.models[choice.model].canary
    if canary is None or not _is_drawn(canary, incoming, envelope):
        return _accepted(incoming, body, envelope, choice, settings, reply_to)
    end = DrawEnd.UNFIT
    accepted = None
    if not names_lacking_tier(choice.tier, envelope.key, *_ladders(settings, choice.model, canary.model)):
        with contextlib.suppress(RequestError):  # where it is wrong for both, the model that was asked for says so
            to_candidate = ModelChoice(canary.model, choice.tier, choice.model)
            accepted = _accepted(incoming, body, envelope, to_candidate, settings, reply_to)
            end = DrawEnd.CANDIDATE if _has_worker(incoming, accepted) else DrawEnd.NO_WORKER
    if accepted is None or end is not DrawEnd.CANDIDATE:
        accepted = _accepted(incoming, body, envelope, choice, settings, reply_to)
    return msgspec.structs.replace(accepted, drawn=Drawn(choice.model, end))


def _is_drawn(canary: CanarySettings, incoming: Incoming, envelope: Envelope) -> bool:
    request = incoming.request_id.encode() or incoming.body
    return is_drawn(canary, envelope, key=incoming.key_name, tenant=incoming.tenant, request=request)


def _ladders(settings: Settings, *models: str) -> list[tuple[str, ...]]:
    return [settings.model(model).ladder for model in models]


def _has_worker(incoming: Incoming, accepted: Accepted) -> bool:
    queue = QueueName.parse(accepted.submission.queue)
    return incoming.has_worker(queue.model, queue.serving(accepted.constraints.ladder))


def _accepted(
    incoming: Incoming, body: Body, envelope: Envelope, choice: ModelChoice, settings: Settings, reply_to: str
) -> Accepted:
    """Return the submission to one model; where that is a candidate, `choice` says of which."""
    constraints = constraints_of(envelope, settings.models[choice.model].ladder, choice.tier)
    costs = _NO_COSTS
    if incoming.payer or envelope.max_cost is not None:
        costs = costs_of(body, settings.model(choice.model), incoming.curves.get(choice.model, {}))
        constraints = within_cost(constraints, costs)
    policy = policy_for(incoming, choice.model, settings)
    decision = policy.decide(score_prompt(prompt_bytes(body), incoming.endpoint, policy.features), constraints)
    if choice.canary_of:
        decision = decision.as_canary_of(choice.canary_of)
    queue = constraints.queue(choice.model, decision.floor, lane_of(envelope, settings.lanes))
    submission = _submission(incoming, body, constraints, decision, queue, reply_to)
    if incoming.payer:
        submission = _paid(submission, incoming.payer, costs[decision.floor] or 0.0)
    if count := settings.queue.prefix_bytes:
        prefix = prefix_of(body, incoming.body, incoming.tenant, count, incoming.continuation_id)
        request = msgspec.structs.replace(submission.request, prefix=prefix)
        submission = msgspec.structs.replace(submission, request=request)
    return Accepted(submission=submission, envelope=envelope, constraints=constraints, policy=policy)


def _paid(submission: Submission, payer: str, expected: float) -> Submission:
    request = msgspec.structs.replace(submission.request, payer=payer, expected_cost=expected)
    return msgspec.structs.replace(submission, request=request)


def _cascades(envelope: Envelope, body: Body, cascade: CascadeSettings) -> bool:
    """Return whether the answer is to be judged; a stream's has reached its reader by then."""
    if envelope.cascade and (body.is_streamed or not cascade.calibration):
        why = (
            "an answer that is streamed cannot be taken back"
            if body.is_streamed
            else "no calibration is configured here"
        )
        raise RequestError(f"X-Cascade must not be true: {why}", param="X-Cascade")
    is_wanted = cascade.always if envelope.cascade is None else envelope.cascade
    return bool(is_wanted and cascade.calibration and not body.is_streamed)


class _Latest:
    """The policies of the settings that the last request was routed by: they are made anew when settings change."""

    made: tuple[Settings, Policies] | None = None


def policy_for(incoming: Incoming, model: str, settings: Settings) -> Policy:
    """Return the policy that decides on a request."""
    latest = _Latest.made
    if latest is None or latest[0] is not settings:
        latest = _Latest.made = settings, Policies(settings)

    def requester() -> Requester:
        return Requester(
            key=incoming.key_name or incoming.tenant, request=incoming.request_id.encode() or incoming.body
        )

    return latest[1].select(model, incoming.key_name, requester)


def _aliases(body: Body) -> Aliases:
    service_tier = body.service_tier
    if service_tier == "standard_only" and body.endpoint.row.errors is Errors.ANTHROPIC:  # as opposed to priority
        service_tier = "default"
    return Aliases(
        service_tier=service_tier,
        lane=service_lane(service_tier),
        quantizations=quantizations_of(body.provider),
        max_tokens=lambda: max_tokens(body),
    )


def _submission(
    incoming: Incoming, body: Body, constraints: Constraints, decision: Decision, queue: QueueName, reply_to: str
) -> Submission:
    request = Request(
        endpoint=incoming.endpoint,
        body=msgspec.Raw(for_engine(incoming.body, body, queue.model)),
        decision=decision,
        ceiling=constraints.ceiling,
        priority=constraints.envelope.priority,
        stream=body.is_streamed,
        request_id=incoming.request_id,
        tenant=incoming.tenant,
        cascade=bool(constraints.envelope.cascade),
        response=incoming.response,
    )
    key = idempotency_key(incoming.headers, incoming.tenant)
    deadlines = [ms for ms in (constraints.envelope.deadline_ms, incoming.deadline_ms) if ms is not None]
    return Submission(
        job_id=incoming.job_id or str(uuid_utils.uuid7()),
        model=queue.model,
        queue=str(queue),
        request=request,
        deadline_ms=min(deadlines, default=None),
        reply_to=reply_to,
        idempotency_key=key,
        fingerprint=hashlib.sha256(incoming.as_sent or incoming.body).hexdigest()[:32] if key else "",
        max_of_tenant=incoming.max_of_tenant,
        weight=incoming.weight,
        labels=labels_of(body, incoming.headers.get("x-tags")),
    )


def idempotency_key(headers: Mapping[str, str], tenant: str) -> str:
    """Return the client's key with its tenant before it, so that tenants cannot use or detect each other's keys.

    Raises:
        RequestError: it is none.

    """
    key = headers.get("idempotency-key", "").strip().strip('"')
    if len(key) > _MAX_KEY_CHARS or not key.isascii():
        raise RequestError(
            f"Idempotency-Key must be at most {_MAX_KEY_CHARS} ASCII characters", param="Idempotency-Key"
        )
    return f"{tenant}:{key}" if key else ""
