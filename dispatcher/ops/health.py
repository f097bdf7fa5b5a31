"""GET /health and /readyz: whether the process lives, and whether requests should come."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import IntakeClosingError, NotReadyError, QueueUnreachableError
from bitladder.queue.json_views.kinds import Count
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state

_BROKEN = "Queues that accept and serve no jobs, and why; the others go on."
_REFUSED = "Why a changed file of the settings cannot be taken; null: none is. What was before stays."

_UNSHOWN = "the log says why, and this answer does to a key with the scope ops:read"
_MAX_CHARS = 300


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Requests are served."""

    status: Literal["ready"] = "ready"
    live_workers: Annotated[dict[str, dict[str, Count]], msgspec.Meta(description="By model and tier.")]
    suspended: Annotated[bool, msgspec.Meta(description="All claims pause.")]
    paused: Annotated[list[str], msgspec.Meta(description="What operators have paused; tenants are not named.")]
    broken_queues: Annotated[dict[str, str], msgspec.Meta(description=_BROKEN)]
    refused_change: Annotated[str | None, msgspec.Meta(description=_REFUSED)]


async def get_health(request: HttpRequest) -> Response:
    """Say that the process lives, whatever Redis does."""
    del request
    return json_response(Health())


async def get_ready(request: HttpRequest) -> Response:
    """Say whether requests should come: Redis serves, all of this intake runs, and it is not being stopped.

    Workers are shown, but do not count: jobs may wait for them. Nor do queues that accept no jobs because their key in
    Redis is no list: the others go on.
    """
    state = intake_state(request)
    if state.closing.is_draining:
        raise IntakeClosingError
    depths = {name: await state.queue.depths(name) for name in state.settings.models}
    await state.server.look()
    if not await state.inbox.ready(state.settings.redis.timeout_s):
        raise QueueUnreachableError("the outcome channel is not subscribed")
    if down := state.background.down:
        raise NotReadyError(f"being started again, the log says why: {', '.join(down)}")
    overview = await state.queue.overview()
    ready = Ready(
        live_workers={name: dict(model.live) for name, model in depths.items()},
        suspended=overview.is_suspended,
        paused=sorted({_public(pause.scope) for pause in overview.pauses}),
        broken_queues={
            queue.queue: queue.problem for model in depths.values() for queue in model.queues if queue.problem
        },
        refused_change=_refused_change(request, state.refused_change),
    )
    return json_response(ready)


def _public(scope: str) -> str:
    """Return a scope without the name of a tenant: anybody may ask."""
    return "tenant" if scope.startswith("tenant:") else scope


def _refused_change(request: HttpRequest, problem: str) -> str | None:
    """Return what is wrong, without folders, to who may see it: it names API keys, and anybody may ask."""
    if problem and not intake_state(request).authenticator.sees_details(request.scope["headers"]):
        return _UNSHOWN
    return re.sub(r"[^\s'\"]*/", "", problem)[:_MAX_CHARS] or None
