"""Build the intake: routes, errors, request ids, start and stop."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncIterator

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitladder.contract import Endpoint
from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.gc_freeze import freeze_heap
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import check_files, check_server, connect
from bitladder.queue.server.durability import check_durability
from bitladder.settings.live import LiveSettings, ReleaseWatch
from bitladder.settings.sections import Settings
from dispatcher.auth import Access, guarded, is_key_required
from dispatcher.closing import Closing
from dispatcher.jobs import dead_letters as dead
from dispatcher.jobs import events, jobs
from dispatcher.jobs.job_ids import QuotedIds
from dispatcher.openai.completions import completion_handler
from dispatcher.openai.openapi import get_openapi
from dispatcher.ops import ops
from dispatcher.problems import on_bitladder_error, on_defect, on_http_error
from dispatcher.root_path import BelowRootPath
from dispatcher.state import Gateway

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def create_app(settings: Settings, watch: ReleaseWatch | None = None, closing: Closing | None = None) -> Starlette:
    """Return the ASGI application of one intake process.

    `watch` brings ladders that are published while it runs, `closing` says when it ends.

    Raises:
        ConfigError: it would need API keys, and none is configured; or certificates of Redis cannot be read.

    """
    check_files(settings.redis)
    is_required = is_key_required(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        live = LiveSettings(settings)
        queue = JobQueue(connect(settings.redis), live)
        gateway = Gateway(live, queue, closing or Closing(), is_key_required=is_required)
        app.state.gateway = gateway
        async with _started(gateway, watch):
            yield

    app = Starlette(
        routes=routes(),
        middleware=[
            Middleware(RequestIds),
            Middleware(BelowRootPath, settings.intake.root_path),
            Middleware(QuotedIds),
        ],
        exception_handlers={BitladderError: on_bitladder_error, HTTPException: on_http_error, Exception: on_defect},
        lifespan=lifespan,
    )
    # Starlette would answer a path with a slash too many, before any key is asked for, by sending its client to
    # whatever host the request's Host names.
    app.router.redirect_slashes = False
    return app


@contextlib.asynccontextmanager
async def _started(gateway: Gateway, watch: ReleaseWatch | None) -> AsyncIterator[None]:
    """Look at Redis, and run what goes on in the background while the block runs."""
    try:
        await check_server(gateway.queue.client, gateway.settings.redis)
        await check_durability(gateway.queue.client, gateway.settings)
    except QueueUnreachableError as error:
        log.warning("redis away at start", error=str(error))  # 503 until it is there
    await gateway.start(watch)
    freeze_heap()
    yield
    await gateway.aclose()


def routes() -> list[Route]:
    """Return every route with who may use it."""
    return [
        guarded(Access.SUBMIT, "POST", Endpoint.COMPLETIONS, completion_handler(Endpoint.COMPLETIONS)),
        guarded(Access.SUBMIT, "POST", Endpoint.CHAT, completion_handler(Endpoint.CHAT)),
        guarded(Access.SUBMIT, "POST", "/v1/jobs", jobs.post_job),
        guarded(Access.READ, "GET", "/v1/jobs/{job_id}", jobs.get_job),
        guarded(Access.SUBMIT, "DELETE", "/v1/jobs/{job_id}", jobs.delete_job),
        guarded(Access.READ, "GET", "/v1/jobs/{job_id}/events", events.get_events),
        guarded(Access.KEY, "GET", "/v1/models", ops.get_models),
        guarded(Access.KEY, "GET", "/v1/models/{model}", ops.get_model),
        guarded(Access.OPS, "GET", "/v1/queues", ops.get_queues),
        guarded(Access.OPS, "GET", "/v1/dead-letters", dead.list_dead_letters),
        guarded(Access.OPS, "POST", "/v1/dead-letters/release", dead.release_dead_letters),
        guarded(Access.OPS, "POST", "/v1/dead-letters/drop", dead.drop_dead_letters),
        guarded(Access.OPS, "GET", "/v1/dead-letters/{job_id}", dead.get_dead_letter),
        guarded(Access.KEY, "GET", "/openapi.json", get_openapi),
        guarded(Access.OPEN, "GET", "/health", ops.get_health),
        guarded(Access.OPEN, "GET", "/readyz", ops.get_ready),
        guarded(Access.OPS, "GET", "/metrics", ops.get_metrics),
    ]


class RequestIds:
    """Take the client's X-Request-Id, or make one, and answer with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("latin-1"))]
            await send(message)

        await self.app(scope, receive, send_with_id)
