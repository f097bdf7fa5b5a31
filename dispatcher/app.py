"""Build the intake: routes, errors, request ids, start and stop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from bitladder.contract import Endpoint
from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.gc_freeze import freeze_heap
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import check_files, check_server, connect
from bitladder.queue.server.durability import check_durability
from bitladder.settings.live import ReleaseWatch
from bitladder.settings.sections import Settings
from dispatcher.auth import Requirement, is_key_required, require
from dispatcher.closing import Closing
from dispatcher.jobs import dead_letter_handlers as dead
from dispatcher.jobs import events, read, submit
from dispatcher.middleware import BelowRootPath, QuotedIds, RequestIds
from dispatcher.openai import models
from dispatcher.openai.completions import completion_handler
from dispatcher.openai.openapi import get_openapi
from dispatcher.ops import health, prometheus, queue_depths
from dispatcher.problems import on_bitladder_error, on_defect, on_http_error
from dispatcher.state import IntakeState

log = structlog.get_logger()


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
        queue = JobQueue(connect(settings.redis), settings)
        state = IntakeState(settings, queue, closing or Closing(), is_key_required=is_required)
        app.state.intake = state
        async with _started(state, watch):
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
async def _started(state: IntakeState, watch: ReleaseWatch | None) -> AsyncIterator[None]:
    """Look at Redis, and run what goes on in the background while the block runs."""
    try:
        await check_server(state.queue.client, state.settings.redis)
        await check_durability(state.queue.client, state.settings)
    except QueueUnreachableError as error:
        log.warning("redis away at start", error=str(error))  # 503 until it is there
    await state.start(watch)
    freeze_heap()
    yield
    await state.aclose()


def routes() -> list[Route]:
    """Return every route with who may use it."""
    return [
        require(Requirement.SUBMIT, "POST", Endpoint.COMPLETIONS, completion_handler(Endpoint.COMPLETIONS)),
        require(Requirement.SUBMIT, "POST", Endpoint.CHAT, completion_handler(Endpoint.CHAT)),
        require(Requirement.SUBMIT, "POST", "/v1/jobs", submit.submit_job),
        require(Requirement.READ, "GET", "/v1/jobs/{job_id}", read.get_job),
        require(Requirement.SUBMIT, "DELETE", "/v1/jobs/{job_id}", read.cancel_job),
        require(Requirement.READ, "GET", "/v1/jobs/{job_id}/events", events.get_events),
        require(Requirement.ANY_KEY, "GET", "/v1/models", models.list_models),
        require(Requirement.ANY_KEY, "GET", "/v1/models/{model}", models.get_model),
        require(Requirement.OPS, "GET", "/v1/queues", queue_depths.get_queues),
        require(Requirement.OPS, "GET", "/v1/dead-letters", dead.list_dead_letters),
        require(Requirement.OPS, "POST", "/v1/dead-letters/release", dead.release_dead_letters),
        require(Requirement.OPS, "POST", "/v1/dead-letters/drop", dead.drop_dead_letters),
        require(Requirement.OPS, "GET", "/v1/dead-letters/{job_id}", dead.get_dead_letter),
        require(Requirement.ANY_KEY, "GET", "/openapi.json", get_openapi),
        require(Requirement.PUBLIC, "GET", "/health", health.get_health),
        require(Requirement.PUBLIC, "GET", "/readyz", health.get_ready),
        require(Requirement.OPS, "GET", "/metrics", prometheus.get_metrics),
    ]
