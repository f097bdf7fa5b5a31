"""Build the intake: routes, errors, request ids, start and stop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from bitladder.errors import BitladderError
from bitladder.process.gc_freeze import freeze_heap
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import check_files, connect
from bitladder.queue.upkeep.live_settings import LiveStore
from bitladder.settings.live import LiveSettings, ReleaseWatch
from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.sections import Settings
from dispatcher.auth import is_key_required
from dispatcher.batch.file_service import Files
from dispatcher.batch.orphans import sweep_files_for_ever
from dispatcher.batch.runner import BatchRunner
from dispatcher.batch.store_choice import open_store
from dispatcher.batch.uploads import Uploads
from dispatcher.error_handlers import on_bitladder_error, on_defect, on_http_error
from dispatcher.http.closing import Closing
from dispatcher.http.error_shapes import AnthropicErrors
from dispatcher.http.middleware import BelowRootPath, QuotedIds, RequestIds
from dispatcher.routes.answer_headers import ANSWER_HEADERS
from dispatcher.routes.table import OPERATIONS, routes
from dispatcher.state import IntakeState


def create_app(
    settings: Settings,
    watch: ReleaseWatch | None = None,
    closing: Closing | None = None,
    live_settings_at: RedisSettings | None = None,
) -> Starlette:
    """Return the ASGI application of one intake process, or of its part at one Redis.

    `watch` brings releases that are published while it runs, `closing` says when it ends, `live_settings_at` where the
    live settings are.

    Raises:
        ConfigError: there must be an API key and is none; or certificates or the files' store cannot be opened.

    """
    check_files(settings.redis)
    is_required, store = is_key_required(settings), open_store(settings.files.store)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        live = LiveSettings(settings)
        queue = JobQueue(connect(settings.redis), live)
        state = IntakeState(live, queue, closing or Closing(), is_key_required=is_required)
        app.state.intake = state
        app.state.files = files = Files(queue, store)
        app.state.uploads = Uploads(state, files)
        app.state.batches = runner = BatchRunner(state, files)
        async with _live_settings(state, live_settings_at), _started(state, watch):
            state.background.start("files", lambda: sweep_files_for_ever(files))
            state.background.start("batches", runner.run)
            yield
        await store.aclose()

    app = Starlette(
        routes=routes(),
        middleware=_middleware(settings),
        exception_handlers={BitladderError: on_bitladder_error, HTTPException: on_http_error, Exception: on_defect},
        lifespan=lifespan,
    )
    # Starlette would answer a path with a slash at its end with a redirect, before any authentication, to whatever host
    # the request's Host names.
    app.router.redirect_slashes = False
    return app


def _traced(settings: Settings) -> list[Middleware]:
    if not settings.tracing.enabled:
        return []
    from dispatcher.request_traces import TracedRequests  # it needs the extra

    return [Middleware(TracedRequests)]


def _middleware(settings: Settings) -> list[Middleware]:
    """Return what stands before all routes, outermost first."""
    return [
        Middleware(RequestIds, logs_all=settings.log.requests),
        *_traced(settings),
        *_web_pages(settings.intake.cors_origins),
        Middleware(BelowRootPath, settings.intake.root_path),
        Middleware(QuotedIds),
        Middleware(AnthropicErrors),
    ]


def _web_pages(origins: tuple[str, ...]) -> list[Middleware]:
    """Return what lets web pages of these origins use the intake (CORS). They send a key, and never cookies."""
    if not origins:
        return []
    methods = sorted({operation.method for operation in OPERATIONS})
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=["*"],
            expose_headers=list(ANSWER_HEADERS),
        )
    ]


@contextlib.asynccontextmanager
async def _live_settings(state: IntakeState, redis: RedisSettings | None) -> AsyncIterator[None]:
    """Read the live settings from another Redis while the block runs, where one is named."""
    if redis is None or redis == state.settings.redis:
        yield
        return
    state.live_store = LiveStore(JobQueue(connect(redis), state.live))
    yield
    await state.live_store.aclose()


@contextlib.asynccontextmanager
async def _started(state: IntakeState, watch: ReleaseWatch | None) -> AsyncIterator[None]:
    """Run the background tasks while the block runs."""
    await state.start(watch)
    freeze_heap()
    yield
    await state.aclose()
