"""The endpoints of operators: models, queues, health, readiness, metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request as HttpRequest

from bitladder.errors import IntakeClosingError, NotFoundError, NotReadyError, QueueUnreachableError
from bitladder.queue.calls import Depths, Overview
from bitladder.queue.json_views.queue_list import read_queues
from bitladder.settings.sections import ModelSettings, TierSettings
from dispatcher.responses import Response, json_response
from dispatcher.state import Gateway


async def get_models(request: HttpRequest) -> Response:
    """List the models as OpenAI's clients expect them."""
    models = request.app.state.gateway.settings.models
    return json_response({"object": "list", "data": [_card(name, model) for name, model in models.items()]})


async def get_model(request: HttpRequest) -> Response:
    """Show one model."""
    name, models = request.path_params["model"], request.app.state.gateway.settings.models
    if name not in models:
        raise NotFoundError(f"the model {name[:80]!r} does not exist; there is {', '.join(models)}", param="model")
    return json_response(_card(name, models[name]))


async def get_queues(request: HttpRequest) -> Response:
    """Show depth, age of the oldest job, jobs in flight and live workers, per model, tier and queue."""
    gateway: Gateway = request.app.state.gateway
    return json_response(await read_queues(gateway.queue))


async def get_health(request: HttpRequest) -> Response:
    """Say that the process lives, whatever Redis does."""
    del request
    return json_response({"status": "ok"})


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
    return json_response(ready)


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
