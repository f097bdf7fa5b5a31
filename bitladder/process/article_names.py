"""The metrics of the article that bitladder began with, by its names: copies of ours, on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qs

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bitladder.queue_name import QueueName

_Labels = Callable[[Mapping[str, str]], dict[str, str]]


def _floor_as_tier(labels: Mapping[str, str]) -> dict[str, str]:
    return {"tier" if name == "floor" else name: value for name, value in labels.items()}


def _parts_of_queue(labels: Mapping[str, str]) -> dict[str, str]:
    queue = QueueName.parse(labels["queue"])
    return {"model": queue.model, "tier": queue.tier, "lane": queue.lane}


# Ours (of a counter without _total), the article's, and its labels.
ARTICLE_NAMES: Mapping[str, tuple[str, _Labels]] = {
    "bitladder_requests_routed": ("quant_router_requests", _floor_as_tier),
    "bitladder_routing_seconds": ("quant_router_latency_seconds", dict),
    "bitladder_prompt_entropy": ("quant_router_entropy", dict),
    "bitladder_engine_faults": ("quant_router_upstream_errors", dict),
    "bitladder_queue_depth": ("quant_router_queue_depth", _parts_of_queue),
    "vllm:kv_cache_usage_perc": ("quant_router_kv_cache_usage", dict),
    "bitladder_engine_nan_ratio": ("quant_router_nan_ratio", dict),
}


class WithArticleNames(Collector):
    """The metrics of a registry, and behind them copies of some by the article's names."""

    def __init__(self, registry: Collector) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            yield metric
            if metric.name in ARTICLE_NAMES:
                yield _renamed(metric, *ARTICLE_NAMES[metric.name])


def _renamed(metric: Metric, name: str, labels: _Labels) -> Metric:
    copy = Metric(name, f"{metric.documentation} As {metric.name}.", metric.type)
    copy.samples = [
        sample._replace(name=sample.name.replace(metric.name, name, 1), labels=labels(sample.labels))
        for sample in metric.samples
    ]
    return copy


def asks_for_article_names(query: str) -> bool:
    """Return whether a query string has names=article."""
    return parse_qs(query).get("names") == ["article"]
