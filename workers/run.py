"""Run one worker: `python -m workers --tier int4`."""

from __future__ import annotations

import argparse
import asyncio
import sys

import structlog
import uvloop
from prometheus_client import start_http_server

from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.gc_freeze import settle_memory
from bitladder.logs import configure_logs
from bitladder.queue.server.connection import check_server
from bitladder.settings.live import LadderWatch
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings
from bitladder.signals import ending
from workers.engines.base import Engine
from workers.engines.echo import EchoEngine
from workers.engines.http import HttpEngine
from workers.engines.vllm_server import VllmServer
from workers.rollout.rolling_update import Rolling

log = structlog.get_logger()


def main() -> int:
    """Read the command line and run until a signal comes."""
    parser = argparse.ArgumentParser(prog="bitladder worker", description="Serve one tier's queues with one engine.")
    parser.add_argument("--tier", required=True, help="the tier to serve, as named in the configuration")
    parser.add_argument("--model", help="the model, where the configuration has several")
    parser.add_argument("--config", help="configuration file (default: $BITLADDER_CONFIG, then ./bitladder.toml)")
    parser.add_argument("--metrics-port", type=int, help="serve /metrics on this port")
    args = parser.parse_args()
    configure_logs()
    flags = {} if args.metrics_port is None else {"worker.metrics_port": args.metrics_port}
    try:
        watch = LadderWatch(lambda: load_settings(args.config, flags=flags))
        model = args.model or next(iter(watch.settings.models))
        watch.settings.model(model).tier(args.tier)
        uvloop.run(_run(watch, model, args.tier))
    except BitladderError as error:
        sys.stderr.write(f"bitladder worker: {error}\n")
        return 2
    return 0


def build_engine(settings: Settings, model: str, tier: str) -> Engine:
    """Return the engine that the settings ask for."""
    kind, its = settings.worker.engine, settings.model(model).tier(tier)
    if kind == "echo":
        return EchoEngine(settings.echo, tier)
    return HttpEngine(its.url, model) if kind == "remote" else VllmServer(model, its, settings.vllm)


async def _run(watch: LadderWatch, model: str, tier: str) -> None:
    settings, rolling = watch.settings, Rolling(watch, model, tier, build_engine)
    for number in ending():
        asyncio.get_running_loop().add_signal_handler(number, rolling.drain)
    try:
        await check_server(rolling.pump.queue.client, settings.redis)
    except QueueUnreachableError as error:
        log.warning("redis away at start", error=str(error))
    if settings.worker.metrics_port is not None:
        start_http_server(settings.worker.metrics_port, settings.worker.metrics_host, rolling.registry)
    settle_memory()
    await rolling.run()
