"""Run one worker: `python -m workers --tier int4`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

import structlog
import uvloop
from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from bitladder.errors import BitladderError, ConfigError, QueueUnreachableError
from bitladder.logs.setup import configure_logs, log_listening, name_process
from bitladder.process.article_names import WithArticleNames, asks_for_article_names
from bitladder.process.gc_freeze import freeze_heap
from bitladder.process.process_metrics import readable_accept
from bitladder.process.signals import ending
from bitladder.queue.checks.rights import WORKER
from bitladder.queue.checks.server_check import check_server
from bitladder.queue.server.outage import check_at_start
from bitladder.settings.live import ReleaseWatch
from bitladder.settings.load import load_settings
from bitladder.settings.log_section import TracingSettings
from bitladder.settings.sections import Settings
from bitladder.settings.worker_section import WorkerSettings
from workers.engines.base import Engine
from workers.engines.echo import EchoEngine
from workers.engines.http import HttpEngine
from workers.engines.vllm_server import VllmServer
from workers.rollout.rolling_update import RollingUpdate

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from bitladder.process.tracing.spans import Spans

log = structlog.get_logger()

# How many ports are tried one after the other: more than one machine has workers.
_PORT_TRIES = 100


def main() -> int:
    """Read the command line and run until a signal comes."""
    parser = argparse.ArgumentParser(prog="bitladder worker", description="Serve one tier's queues with one engine.")
    parser.add_argument("--tier", required=True, help="the tier to serve, as named in the configuration")
    parser.add_argument("--model", help="the model, where the configuration has several")
    parser.add_argument("--config", help="configuration file (default: $BITLADDER_CONFIG, then ./bitladder.toml)")
    ports = parser.add_mutually_exclusive_group()
    ports.add_argument("--metrics-port", type=int, help="serve /metrics on this port")
    ports.add_argument("--metrics-from", type=int, help="serve /metrics on the first free port from this one on")
    args = parser.parse_args()
    port = args.metrics_port if args.metrics_from is None else args.metrics_from
    flags = {} if port is None else {"worker.metrics_port": port}
    try:
        watch = ReleaseWatch(lambda: load_settings(args.config, flags=flags))
        configure_logs(watch.settings.log.level)
        model = args.model or next(iter(watch.settings.models))
        watch.settings.model(model).tier(args.tier)
        watch.narrow_to(lambda settings: settings.at_redis_of(model))
        name_process(model=model, tier=args.tier)
        uvloop.run(_run(watch, model, args.tier, port_tries=1 if args.metrics_from is None else _PORT_TRIES))
    except BitladderError as error:
        sys.stderr.write(f"bitladder worker: {error}\n")
        return 2
    return 0


def _build_engine(settings: Settings, model: str, tier: str) -> Engine:
    """Return the engine that the settings ask for."""
    model_settings = settings.model(model)
    tier_settings = model_settings.tier(tier)
    if settings.worker.engine == "echo":
        return EchoEngine(settings.echo, tier)
    if settings.worker.engine == "remote":
        return HttpEngine(tier_settings.url, model)
    return VllmServer(model, tier_settings, settings.vllm, tool_call_parser=model_settings.tool_call_parser)


async def _run(watch: ReleaseWatch, model: str, tier: str, port_tries: int) -> None:
    settings, spans = watch.settings, _open_spans(watch.settings.tracing, model, tier)
    update = RollingUpdate(watch, model, tier, _build_engine, spans=spans)
    for number in ending():
        asyncio.get_running_loop().add_signal_handler(number, update.drain)
    with contextlib.suppress(QueueUnreachableError):  # the worker starts without Redis, and waits for it
        await check_at_start(lambda: check_server(update.pump.queue.client, settings.redis, WORKER))
    if settings.worker.metrics_port is not None:
        serve_metrics(
            settings.worker,
            update.registry,
            port_tries,
            is_ready=lambda: update.pump.leases.is_ready,
            article_names=settings.metrics.article_names,
        )
    freeze_heap()
    try:
        await update.run()
    finally:
        if spans:
            await asyncio.to_thread(spans.close)


def _open_spans(settings: TracingSettings, model: str, tier: str) -> Spans | None:
    if not settings.enabled:
        return None
    from bitladder.process.tracing.spans import Spans  # it needs the extra

    service = f"{settings.service_name}-worker"
    return Spans(service, f"{model}.{tier}", settings.endpoint, settings.ratio, settings.batch_ratio)


def serve_metrics(
    settings: WorkerSettings,
    registry: CollectorRegistry,
    tries: int,
    *,
    is_ready: Callable[[], bool] = lambda: True,
    article_names: bool = False,
) -> int:
    """Serve /metrics and /readyz on the first free port, and return the port.

    Raises:
        ConfigError: none of the ports is free.

    """
    first, host = settings.metrics_port or 0, settings.metrics_host
    for port in range(first, first + tries):
        try:
            server, _ = start_http_server(port, host, registry)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"worker.metrics_host: cannot listen on {host}:{port}: {error.strerror}") from error
        else:
            plain, renamed = server.get_app(), make_wsgi_app(_with_article_names(registry))
            server.set_app(_with_readiness(renamed if article_names else plain, renamed, is_ready))
            _harden(server)
            log_listening(host, server.server_port, "/metrics")
            return int(server.server_port)
    raise ConfigError(
        f"worker.metrics_port: {host}:{first} is in use by another process; name a free port, or the first of several "
        "with --metrics-from"
    )


def _harden(server: WSGIServer) -> None:
    """Have an odd request, or a client that goes away, end in a line of the log at most."""
    serve = server.get_app()
    assert serve  # noqa: S101  (prometheus_client has set it)

    def negotiated(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return serve(environ | {"HTTP_ACCEPT": readable_accept(environ.get("HTTP_ACCEPT", ""))}, start_response)

    server.set_app(negotiated)
    server.handle_error = _log_broken_scrape  # type: ignore[method-assign,assignment]


def _log_broken_scrape(request: object, client: object) -> None:
    del request, client
    log.warning("metrics not read to the end", error=repr(sys.exc_info()[1]))


def _with_article_names(registry: CollectorRegistry) -> CollectorRegistry:
    both = CollectorRegistry()
    both.register(WithArticleNames(registry))
    return both


def _with_readiness(
    metrics: WSGIApplication | None, renamed: WSGIApplication, is_ready: Callable[[], bool]
) -> WSGIApplication:
    """Answer /readyz: 200 while the worker claims jobs, 503 while its engine starts or is broken, or it drains."""
    assert metrics  # noqa: S101  (prometheus_client has set it)

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/readyz":
            asked = renamed if asks_for_article_names(environ.get("QUERY_STRING", "")) else metrics
            return asked(environ, start_response)
        status = "200 OK" if is_ready() else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain")])
        return [status.encode() + b"\n"]

    return serve
