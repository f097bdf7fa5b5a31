"""vLLM's own metrics: what the worker goes by, and all of them for the worker's /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from workers.engines.base import EngineLoad

# vLLM has about 50 KB of them; what is larger is not read.
MAX_BYTES = 4 * 1024 * 1024
_PREFIX = "vllm:"
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_READ, _WRITTEN, _CORRUPTED = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:corrupted_requests_total",
)
_SUMMED = {_RUNNING, _WAITING, _READ, _WRITTEN, _CORRUPTED}


def read_load(text: str) -> EngineLoad:
    """Read how full an engine is; a server without these metrics counts as idle."""
    sums: dict[str, float] = {}
    used = 0.0
    for line in text.splitlines():
        if not line.startswith(_PREFIX):
            continue
        name, value = line.partition("{")[0], line.rpartition(" ")[2]
        if name in _SUMMED:
            sums[name] = sums.get(name, 0.0) + float(value)
        elif name == "vllm:kv_cache_usage_perc":
            used = max(used, float(value))
    tokens = [sums[name] for name in (_READ, _WRITTEN) if name in sums]
    return EngineLoad(
        running=int(sums.get(_RUNNING, 0)),
        waiting=int(sums.get(_WAITING, 0)),
        cache_used=used,
        tokens=int(sum(tokens)) if tokens else None,
        corrupted=int(sums.get(_CORRUPTED, 0)),
        exposition=text,
    )


def engine_metrics(exposition: str, labels: Mapping[str, str]) -> Iterable[Metric]:
    """Return an engine's metrics with the worker's labels beside its own; none where they cannot be read.

    Other names than vLLM's are left out, as those of its process: the worker has its own of the same name.
    """
    lines = [
        line for line in exposition.splitlines() if line.removeprefix("# HELP ").removeprefix("# TYPE ")[:5] == _PREFIX
    ]
    try:
        families = {family.name: family for family in text_string_to_metric_families("\n".join(lines) + "\n")}
    except ValueError:
        return
    for family in families.values():
        if family.name.endswith("_created"):  # OpenMetrics has a place of its own for these
            continue
        family.samples = [sample._replace(labels={**labels, **sample.labels}) for sample in family.samples]
        yield family
