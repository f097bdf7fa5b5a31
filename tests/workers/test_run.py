"""workers/run.py: where a worker's metrics are served, and what it says when they cannot be."""

from __future__ import annotations

import socket
import urllib.request

import httpx2
import pytest
from prometheus_client import CollectorRegistry, Gauge

from bitladder.errors import ConfigError
from bitladder.settings.worker_section import WorkerSettings
from workers.run import serve_metrics


def test_the_first_free_port_serves_the_metrics() -> None:
    registry = CollectorRegistry()
    Gauge("what_is_served", "A figure of this test's.", registry=registry).set(7)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = WorkerSettings(metrics_port=taken.getsockname()[1])

        port = serve_metrics(settings, registry, 100)

        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
    assert port > (settings.metrics_port or 0)
    assert b"what_is_served 7.0" in page


def test_a_port_in_use_is_one_line_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(
            ConfigError, match=rf"^worker.metrics_port: 127\.0\.0\.1:{port} is in use .*--metrics-from$"
        ):
            serve_metrics(WorkerSettings(metrics_port=port), CollectorRegistry(), 1)


def test_an_address_that_is_not_this_machine_s_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^worker\.metrics_host: cannot listen on 192\.0\.2\.1:0: "):
        serve_metrics(WorkerSettings(metrics_port=0, metrics_host="192.0.2.1"), CollectorRegistry(), 1)


def test_readiness_is_asked_beside_the_metrics() -> None:
    ready: list[bool] = []
    port = serve_metrics(WorkerSettings(metrics_port=0), CollectorRegistry(), 1, is_ready=lambda: bool(ready))

    before = httpx2.get(f"http://127.0.0.1:{port}/readyz")
    ready.append(True)
    after = httpx2.get(f"http://127.0.0.1:{port}/readyz")

    assert (before.status_code, after.status_code) == (503, 200)
    assert httpx2.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
