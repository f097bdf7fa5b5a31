"""bitladder/process/process_metrics.py: which form of the metrics a client gets, and what every process has."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder

from bitladder.process.process_metrics import add_process_metrics, readable_accept

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
# What Prometheus 2.42 and 3 send.
OLD = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
NEW = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain", PLAIN),
        ("text/plain;version=1.0.0", PLAIN),
        ("application/openmetrics-text;q=0, text/plain", PLAIN),
        ("text/html, application/json", PLAIN),
        (",;,;=", PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; version=0.0.1", OPENMETRICS),
        ("application/openmetrics-text;version=abc", OPENMETRICS),
        ("application/openmetrics-text;version=9.9.9", OPENMETRICS),
        (OLD, OPENMETRICS),
        (NEW, OPENMETRICS),
    ],
)
def test_metrics_go_out_in_a_form_that_the_client_names(accept: str, answered: str) -> None:
    assert choose_encoder(readable_accept(accept))[1] == answered


def test_a_process_says_which_version_it_is_and_what_it_uses() -> None:
    registry = CollectorRegistry()
    add_process_metrics(registry)

    labels = {"version": version("bitladder"), "python": platform.python_version()}
    assert registry.get_sample_value("bitladder_build_info", labels) == 1
    assert (registry.get_sample_value("process_open_fds") or 0) >= len(os.listdir("/proc/self/fd")) - 2
    assert b"# TYPE bitladder_build_info gauge" in generate_latest(registry)
