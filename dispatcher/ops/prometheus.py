"""GET /metrics, in Prometheus' text format or as OpenMetrics."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request as HttpRequest

from bitladder.errors import QueueUnreachableError
from bitladder.process.article_names import WithArticleNames, asks_for_article_names
from bitladder.process.process_metrics import readable_accept
from bitladder.queue.calls.read import Depths, Overview
from bitladder.queue.dead_letters import DeadLetters
from dispatcher.http.responses import Response
from dispatcher.state import IntakeState, intake_state


async def get_metrics(request: HttpRequest) -> Response:
    """Show the metrics; the queues' are read from Redis now, and left out where Redis is unreachable."""
    state = intake_state(request)
    try:
        for name in state.settings.models:
            _set_gauges(state, name, await state.queue.depths(name))
        _set_overview(state, await state.queue.overview())
        state.metrics.dead_letters.set(await DeadLetters(state.queue).count())
    except QueueUnreachableError:
        state.metrics.dead_letters.set(0)
        state.metrics.depth.clear()
        state.metrics.oldest.clear()
        state.metrics.in_flight.clear()
        state.metrics.live.clear()
        state.metrics.shifted.clear()
    shown: Collector = state.metrics.registry
    if state.settings.metrics.article_names or asks_for_article_names(request.url.query):
        shown = WithArticleNames(shown)
    write, media_type = choose_encoder(readable_accept(request.headers.get("accept", "")))
    return Response(write(shown), media_type=media_type)


def _set_gauges(state: IntakeState, model: str, depths: Depths) -> None:
    for queue in depths.queues:
        state.metrics.depth.labels(queue.queue).set(queue.depth)
        state.metrics.in_flight.labels(queue.queue).set(queue.in_flight)
        state.metrics.oldest.labels(queue.queue).set(queue.oldest_age_s or 0)
    for tier, live in depths.live.items():
        state.metrics.live.labels(model, tier).set(live)
        state.metrics.shifted.labels(model, tier).set(tier in depths.shifted)


def _set_overview(state: IntakeState, overview: Overview) -> None:
    state.metrics.overview.suspended.set(overview.is_suspended)
    state.metrics.overview.paused.clear()
    for pause in overview.pauses:
        state.metrics.overview.paused.labels(pause.scope).set(1)
    state.metrics.overview.unknown_queues.set(len(overview.unknown))
    state.metrics.overview.unknown_depth.set(sum(queue.depth for queue in overview.unknown))
