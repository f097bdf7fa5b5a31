"""What the metrics of all programs have in common: which process it is, in which form they go out, and buckets."""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Info, ProcessCollector

# From a queue's fastest answer to the slowest generation that a client waits for.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# Of the whole process, beside the registries: spans are sent by a thread of its own.
SPANS = Counter("bitladder_spans", "What became of the process's spans?", ("result",), registry=None)
_OPENMETRICS = "application/openmetrics-text"


def readable_accept(accept: str) -> str:
    """Return what a client takes in the words that prometheus_client reads: it breaks on a version that is no number.

    Every Prometheus that names OpenMetrics takes its version 1.0.0, which is what goes out then.
    """
    kinds = [kind.lower().replace(" ", "").split(";") for kind in accept.split(",")]
    is_taken = any(name == _OPENMETRICS and not {"q=0", "q=0.0"} & set(rest) for name, *rest in kinds)
    # Without "escaping" prometheus_client writes vllm:x as vllm_x in samples, and not in their heads.
    return f"{_OPENMETRICS}; version=1.0.0; escaping=allow-utf-8" if is_taken else ""


def add_process_metrics(registry: CollectorRegistry) -> None:
    """Add `process_*`, by Prometheus' own names, `bitladder_build_info` and `bitladder_spans_total`."""
    ProcessCollector(registry=registry)
    registry.register(SPANS)
    build = Info("bitladder_build", "Which version of bitladder is this, under which Python?", registry=registry)
    build.info({"version": version("bitladder"), "python": platform.python_version()})
