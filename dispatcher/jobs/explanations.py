"""POST /v1/route decides without running; GET /v1/jobs/{job_id}/explain says why a job went where it went."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request as HttpRequest

from bitladder.contract import ExpectedWait, JobView, State
from bitladder.decision import UNDECIDED, describe_decision
from bitladder.ids import readable
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.json_views.dead_letter import LostExecution, describe_losses
from bitladder.queue.json_views.job import Features, JobFailure, Policy
from bitladder.queue.json_views.kinds import Count, Duration, ModelName, TierName
from bitladder.queue.json_views.steering.moving import Move, read_move
from bitladder.queue.load_sample import ListSample, ModelSample, take_sample
from bitladder.queue.untrusted import MAX_WORD_CHARS
from bitladder.queue_name import Lane, QueueName
from bitladder.routing.accept import accept
from bitladder.routing.body import max_tokens, read_body
from bitladder.routing.cost import Curves, cost_per_1k, expected_costs
from bitladder.routing.forecast import RANK, forecast
from bitladder.routing.policies.interface import LookedAt
from bitladder.routing.serving_tier import TierNow, serving_tier
from bitladder.settings.models_section import TierSettings
from dispatcher.http.request_parts import path_job_id, read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.jobs.existing_jobs import own_job
from dispatcher.jobs.new_jobs import endpoint_of, lane_of_query
from dispatcher.state import IntakeState, intake_state
from dispatcher.submission import incoming_of

_TIER = "The tier that would serve it now, by the queues as they are; null: none that may has a live worker."
_WAIT = "Expected seconds until a worker claims it; null: the tier's rate is not known."
_INTERVAL = "Four of five jobs wait between these, by how far earlier forecasts were off; null: not known."
_BELOW = "Lower tiers that may serve it where all those are full or dead: the request consented, lowest first."
_COSTS = "By tier that may serve it, in the currency of the prices; null: nothing was measured there."
_CANARY = "The model that was asked for, where its candidate answers; null: the usual."
CanaryOf = Annotated[ModelName | None, Meta(description=_CANARY)]
ServingTier = Annotated[TierName | None, Meta(description=_TIER)]
Wait = Annotated[Duration | None, Meta(description=_WAIT)]
WaitInterval = Annotated[tuple[Duration, Duration] | None, Meta(description=_INTERVAL)]
BelowFloor = Annotated[list[str], Meta(description=_BELOW)]
Costs = Annotated[dict[str, float | None], Meta(description=_COSTS)]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a job that waits now."""

    tier: ServingTier
    jobs_ahead: Annotated[Count, Meta(description="Waiting jobs of this tier that would be served first.")]
    wait_s: Wait
    wait_interval_s: WaitInterval


class Route(Expected, frozen=True, kw_only=True):
    """What would be decided on a request; nothing is queued or run."""

    object: Literal["route"] = "route"
    model: ModelName
    canary_of: CanaryOf
    floor: TierName
    ceiling: TierName | None
    allowed: Annotated[list[str], Meta(description="The tiers that may serve it, lowest first.")]
    below_floor: BelowFloor
    lane: Lane
    queue: str
    reason: str
    entropy: Annotated[float, Meta(ge=0, le=8)] | None
    policy: Policy
    features: Features
    rules: Annotated[list[LookedAt], Meta(description="Every rule that the policy looked at; the last one chose.")]
    expected_costs: Costs


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job is where it is, or how it came to its outcome."""

    id: str
    object: Literal["job.explanation"] = "job.explanation"
    status: State
    queue: str
    lane: str | None
    canary_of: CanaryOf
    floor: str | None
    reason: str | None
    entropy: float | None
    policy: Policy
    features: Features
    allowed: Annotated[list[str], Meta(description="The tiers that may serve it, lowest first.")]
    below_floor: BelowFloor
    attempts: Count
    executions: Annotated[list[LostExecution], Meta(description="Those that came to nothing, the first one first.")]
    moved: Annotated[Move | None, Meta(description="An operator moved it up; `floor` and `reason` are as decided.")]
    expected: Annotated[Expected | None, Meta(description="While it waits.")]
    tier: Annotated[str | None, Meta(description="The tier that served it, or that it failed at.")]
    overflowed_from: str | None
    served_below_floor: Annotated[bool, Meta(description="A lower tier than its floor served it: it consented.")]
    error: Annotated[JobFailure | None, Meta(description="Why it did not finish.")]
    queue_ms: Duration | None
    run_ms: Duration | None
    cost: float | None
    costs_elsewhere: Annotated[
        Costs, Meta(description="What its tokens would have cost at each tier that was allowed.")
    ]


async def route_request(request: HttpRequest) -> Response:
    """Decide on a completion or chat body, and say everything that was looked at."""
    state = intake_state(request)
    body = await read_bytes(request, state.settings.intake, state.closing)
    endpoint, lane = endpoint_of(request, body), lane_of_query(request)
    accepted = accept(incoming_of(state, request, endpoint, body, lane), state.settings)
    decision, queue = accepted.submission.request.decision, QueueName.parse(accepted.submission.queue)
    allowed, below_floor = _allowed(state, queue)
    prices = {tier: state.settings.model(queue.model).tier(tier).price_per_hour for tier in allowed}
    route = Route(
        model=queue.model,
        canary_of=decision.canary_of,
        ceiling=queue.ceiling,
        allowed=allowed,
        below_floor=below_floor,
        lane=Lane(queue.lane),
        queue=str(queue),
        **describe_decision(decision),
        rules=list(accepted.policy.explain(decision.score, accepted.constraints)),
        expected_costs=expected_costs(prices, _curves(state, queue.model), max_tokens(read_body(endpoint, body))),
        **msgspec.structs.asdict(await _expected(state, queue)),
    )
    return json_response(route)


async def explain_job(request: HttpRequest) -> Response:
    """Explain one job to who may see it."""
    state = intake_state(request)
    job_id = path_job_id(request)
    view = await own_job(request, state, job_id)
    losses, moved = await DeadLetters(state.queue).history(job_id), await read_move(state.queue, job_id)
    queue = _queue_of(state, view)
    allowed, below_floor = _allowed(state, queue) if queue else ([], [])
    decision = (view.outcome and view.outcome.decision) or (view.request.decision if view.request else UNDECIDED)
    outcome = view.outcome
    explanation = Explanation(
        id=readable(job_id),
        status=view.state,
        queue=view.queue,
        lane=queue.lane if queue else None,
        canary_of=decision.canary_of,
        **describe_decision(decision.shortened(MAX_WORD_CHARS)),
        allowed=allowed,
        below_floor=below_floor,
        attempts=view.attempts,
        executions=describe_losses(losses),
        moved=moved,
        expected=await _expected(state, queue, view) if queue and view.state is State.QUEUED else None,
        tier=outcome.tier if outcome else None,
        overflowed_from=outcome.overflowed_from if outcome else None,
        served_below_floor=outcome is not None and outcome.served_below_floor,
        error=JobFailure(message=outcome.error, code=outcome.code) if outcome and outcome.error else None,
        queue_ms=outcome.queue_ms if outcome else None,
        run_ms=outcome.run_ms if outcome else None,
        cost=outcome.cost if outcome else None,
        costs_elsewhere=_costs_elsewhere(state, queue, allowed, view) if queue else {},
    )
    return json_response(explanation)


def _queue_of(state: IntakeState, view: JobView) -> QueueName | None:
    """Return the queue of a job; None: its name is none that the configuration knows, or that any tier may serve."""
    try:
        queue = QueueName.parse(view.queue)
    except ValueError:
        return None
    model = state.settings.models.get(queue.model)
    if model is None or not {queue.tier, queue.ceiling or queue.tier, *queue.only} <= set(model.ladder):
        return None
    return queue if queue.serving(model.ladder) else None


def _allowed(state: IntakeState, queue: QueueName) -> tuple[list[str], list[str]]:
    """Return the tiers that may serve a queue, and those below its own that may with its clients' consent."""
    ladder = state.settings.model(queue.model).ladder
    serving, rank = queue.serving(ladder), ladder.index(queue.tier)
    return [name for name in serving if ladder.index(name) >= rank], [
        name for name in serving if ladder.index(name) < rank
    ]


def _curves(state: IntakeState, model: str) -> Curves:
    return state.budgets.curves.get(model, {})


def _costs_elsewhere(
    state: IntakeState, queue: QueueName, allowed: list[str], view: JobView
) -> dict[str, float | None]:
    """Return what the tokens of an answer cost at each tier's present load."""
    tokens = view.outcome.usage.completion_tokens if view.outcome else 0
    if not tokens:
        return {}
    curves, model = _curves(state, queue.model), state.settings.model(queue.model)
    costs: dict[str, float | None] = {}
    for tier in allowed:
        pace = curves[tier].now if tier in curves else None
        costs[tier] = cost_per_1k(model.tier(tier).price_per_hour, pace) * tokens / 1000 if pace else None
    return costs


async def _expected(state: IntakeState, queue: QueueName, view: JobView | None = None) -> Expected:
    """Return what would become of a new job in this queue, or of one that waits there, by a sample taken now."""
    settings, model = state.settings, state.settings.model(queue.model)
    sample = (await take_sample(state.queue.client, settings)).models[queue.model]
    tiers = {tier.name: _now(tier, sample) for tier in model.tiers}
    depth = tuple(_depth(sample, queue.tier, lane) for lane in Lane)
    rank = RANK[queue.lane]
    marks = model.tier(queue.tier)
    overflows = queue.lane in settings.lanes.eager or (
        queue.lane in settings.lanes.overflow and depth[rank] > marks.high
    )
    eager = frozenset(tier.name for tier in model.tiers if tier.eager)
    allowed, below = _allowed(state, queue)
    wait = state.waits.of_waiting(view) if view else _wait_of_new(state, queue, depth, tiers[queue.tier])
    return Expected(
        tier=serving_tier(allowed, tiers, overflows=overflows, eager=eager, below=below),
        jobs_ahead=view.position - 1 if view and view.position else sum(depth[: rank + 1]),
        wait_s=wait.wait_ms / 1000 if wait else None,
        wait_interval_s=(wait.low_ms / 1000, wait.high_ms / 1000) if wait else None,
    )


def _wait_of_new(state: IntakeState, queue: QueueName, depth: tuple[int, ...], now: TierNow) -> ExpectedWait | None:
    """Return how long a job would wait that came now; None: the tier's rate is not known."""
    if now.free > 0 and not any(depth):
        return ExpectedWait(wait_ms=0, low_ms=0, high_ms=0)
    known = state.admission.load_of((queue.model, queue.tier))
    if known is None:
        return None
    current = msgspec.structs.replace(known[0], depth=depth, free=0 if any(depth) else max(0, now.free))
    expected = forecast(current, RANK[queue.lane], (0,) * len(Lane), 0)
    return state.waits.expect(queue, expected.wait_s) if expected else None


def _depth(sample: ModelSample, tier: str, lane: str) -> int:
    return sum(state.depth for name, state in _lists(sample, tier) if name.lane == lane)


def _now(tier: TierSettings, sample: ModelSample) -> TierNow:
    lists = [state for _, state in _lists(sample, tier.name)]
    live = sample.live[tier.name]
    running = sum(state.in_flight for state in lists)
    return TierNow(live=live, waiting=sum(state.depth for state in lists), free=live * tier.slots - running)


def _lists(sample: ModelSample, tier: str) -> list[tuple[QueueName, ListSample]]:
    """Return the lists of one tier, those of sets of tiers too."""
    parsed = [(QueueName.parse(queue), state) for queue, state in sample.lists.items()]
    return [(name, state) for name, state in parsed if name.tier == tier]
