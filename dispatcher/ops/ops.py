"""The endpoints of operators: models, queues, health, readiness, metrics."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request as HttpRequest

from bitladder.contract import QueueName
from bitladder.errors import IntakeClosingError, NotFoundError, NotReadyError, QueueUnreachableError
from bitladder.queue.calls.read import Depths, Overview
from bitladder.queue.job_queue import JobQueue
from bitladder.settings.models_section import ModelSettings, TierSettings
from dispatcher.responses import Response
from dispatcher.state import Gateway

# Queues that no tier serves: so many are listed, the deepest first.
MAX_UNKNOWN = 100


async def get_models(request: HttpRequest) -> Response:
    """List the models as OpenAI's clients expect them."""
    models = request.app.state.gateway.settings.models
    return _json({"object": "list", "data": [_card(name, model) for name, model in models.items()]})


async def get_model(request: HttpRequest) -> Response:
    """Show one model."""
    name, models = request.path_params["model"], request.app.state.gateway.settings.models
    if name not in models:
        raise NotFoundError(f"the model {name[:80]!r} does not exist; there is {', '.join(models)}", param="model")
    return _json(_card(name, models[name]))


async def get_queues(request: HttpRequest) -> Response:
    """Show depth, age of the oldest job, jobs in flight and live workers, per model, tier and queue."""
    gateway: Gateway = request.app.state.gateway
    return _json(await look_at_queues(gateway.queue))


async def look_at_queues(queue: JobQueue) -> dict[str, object]:
    """Return all queues as JSON shows them: those that tiers serve by model, and RQ's others."""
    overview = await queue.overview()
    return {
        "object": "list",
        "suspended": overview.is_suspended,
        "data": [describe_queues(name, await queue.depths(name)) for name in queue.settings.models],
        "unknown": [asdict(one) for one in overview.unknown[:MAX_UNKNOWN]],
        "unknown_total": len(overview.unknown),
    }


def describe_queues(model: str, depths: Depths) -> dict[str, object]:
    """Return one model's queues as JSON shows them."""
    tiers = []
    for tier, live in depths.live.items():
        mine = [queue for queue in depths.queues if QueueName.parse(queue.queue).tier == tier]
        ages = [queue.oldest_age_s for queue in mine if queue.oldest_age_s is not None]
        tiers.append(
            {
                "tier": tier,
                "live_workers": live,
                "depth": sum(queue.depth for queue in mine),
                "in_flight": sum(queue.in_flight for queue in mine),
                "oldest_age_s": max(ages, default=None),
                "queues": [
                    {
                        "queue": queue.queue,
                        "lane": QueueName.parse(queue.queue).lane,
                        "depth": queue.depth,
                        "in_flight": queue.in_flight,
                        "oldest_age_s": queue.oldest_age_s,
                        "problem": queue.problem or None,
                    }
                    for queue in mine
                ],
            }
        )
    return {"model": model, "tiers": tiers}


async def get_health(request: HttpRequest) -> Response:
    """Say that the process lives, whatever Redis does."""
    del request
    return _json({"status": "ok"})


async def get_ready(request: HttpRequest) -> Response:
    """Say whether requests should come: Redis answers, all of this intake runs, and it is not being stopped.

    Workers are shown, but jobs may wait for them. So are queues that take no jobs because their key in Redis is no
    list: the others go on.
    """
    gateway: Gateway = request.app.state.gateway
    if gateway.closing.is_near:
        raise IntakeClosingError
    seen = {name: await gateway.queue.depths(name) for name in gateway.settings.models}
    live = {name: its.live for name, its in seen.items()}
    broken = {queue.queue: queue.problem for its in seen.values() for queue in its.queues if queue.problem}
    if not await gateway.inbox.ready(gateway.settings.redis.timeout_s):
        raise QueueUnreachableError("the outcome channel is not subscribed")
    if down := gateway.background.down:
        raise NotReadyError(f"being started again, the log says why: {', '.join(down)}")
    overview = await gateway.queue.overview()
    ready = {"status": "ready", "live_workers": live, "suspended": overview.is_suspended, "broken_queues": broken}
    return _json(ready)


async def get_metrics(request: HttpRequest) -> Response:
    """Show the metrics; the queues' are read from Redis now, and left out when it is away."""
    gateway: Gateway = request.app.state.gateway
    try:
        for name in gateway.settings.models:
            _set_gauges(gateway, name, await gateway.queue.depths(name))
        _set_overview(gateway, await gateway.queue.overview())
    except QueueUnreachableError:
        gateway.metrics.depth.clear()
        gateway.metrics.oldest.clear()
        gateway.metrics.in_flight.clear()
        gateway.metrics.live.clear()
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _set_gauges(gateway: Gateway, model: str, depths: Depths) -> None:
    for queue in depths.queues:
        gateway.metrics.depth.labels(queue.queue).set(queue.depth)
        gateway.metrics.in_flight.labels(queue.queue).set(queue.in_flight)
        gateway.metrics.oldest.labels(queue.queue).set(queue.oldest_age_s or 0)
    for tier, live in depths.live.items():
        gateway.metrics.live.labels(model, tier).set(live)


def _set_overview(gateway: Gateway, overview: Overview) -> None:
    gateway.metrics.overview.suspended.set(overview.is_suspended)
    gateway.metrics.overview.unknown_queues.set(len(overview.unknown))
    gateway.metrics.overview.unknown_depth.set(sum(one.depth for one in overview.unknown))


def _card(name: str, model: ModelSettings) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": model.owned_by,
        "root": name,
        "parent": None,
        "max_model_len": model.max_model_len,
        "tiers": model.ladder,
        "published": {tier.name: _published(tier) for tier in model.tiers if tier.published},
    }


def _published(tier: TierSettings) -> dict[str, object]:
    """Return what was measured of a tier; where its weights are is nobody's business."""
    assert tier.published  # noqa: S101  (the caller looked)
    return tier.published.model_dump()


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
