"""bitladder/process/metric_table.py and article_names.py: metrics of rows, bounded labels, copies by other names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bitladder.process.article_names import WithArticleNames, asks_for_article_names
from bitladder.process.metric_table import OTHERS, Metrics, Row
from dispatcher.metrics.intake_rows import QUEUE_ROWS, REQUEST_ROWS

ROW = Row("x_total", "counter", "jobs", "How many?", {"tenant": 2, "kind": None})


def test_a_value_beyond_the_maximum_of_its_label_is_counted_with_the_others() -> None:
    registry = CollectorRegistry()
    count = Metrics([ROW], registry, {"tier": "int4"}).counters("x_total")
    for tenant in ("a", "b", "c", "a", "d"):
        count(tenant, "prompt").inc()

    values = {tenant: registry.get_sample_value("x_total", labels(tenant)) for tenant in ("a", "b", "c", OTHERS)}
    assert values == {"a": 2, "b": 1, "c": None, OTHERS: 2}


def labels(tenant: str) -> dict[str, str]:
    return {"tier": "int4", "tenant": tenant, "kind": "prompt"}


def test_many_values_beyond_the_maximum_take_no_memory() -> None:
    count = Metrics([ROW], CollectorRegistry()).counters("x_total")

    assert len({count(f"tenant {number}", "prompt") for number in range(1000)}) == 3


def test_the_article_s_names_have_the_values_of_ours() -> None:
    registry = CollectorRegistry()
    made = Metrics((*REQUEST_ROWS, *QUEUE_ROWS), registry)
    made.counters("bitladder_requests_routed_total")("m", "int4", "interactive").inc(3)
    made.gauge("bitladder_queue_depth").labels("m:int8:batch").set(7)
    made.histogram("bitladder_routing_seconds").observe(2e-5)
    plain, both = generate_latest(registry).decode(), generate_latest(WithArticleNames(registry)).decode()

    assert "quant_router" not in plain
    assert set(plain.splitlines()) < set(both.splitlines())
    assert 'quant_router_requests_total{lane="interactive",model="m",tier="int4"} 3.0' in both
    assert 'quant_router_queue_depth{lane="batch",model="m",tier="int8"} 7.0' in both
    assert 'quant_router_latency_seconds_bucket{le="2.5e-05"} 1.0' in both
    assert "# TYPE quant_router_latency_seconds histogram" in both
    text = generate_openmetrics(WithArticleNames(registry)).decode()  # type: ignore[no-untyped-call]
    families = {family.name for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert {"quant_router_requests", "quant_router_queue_depth", "quant_router_latency_seconds"} <= families


def test_a_query_asks_for_the_article_s_names() -> None:
    asked = ["names=article", "", "names=ours", "names=article&x=1", "names[]=article"]

    assert [asks_for_article_names(query) for query in asked] == [True, False, False, True, False]
