"""workers/engines/vllm_metrics.py, on what vLLM 0.32 says of itself."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bitladder.process.process_metrics import readable_accept
from workers.engines.vllm_metrics import engine_metrics, read_load

LABELS = {"model": "smollm2", "tier": "int4"}
SAID = """\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",major="3"} 1.0
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 61.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="smollm2"} 3.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="smollm2"} 0.25
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="smollm2"} 41.0
# HELP vllm:prompt_tokens_created Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="smollm2"} 1.7e+09
# HELP vllm:iteration_tokens_total Histogram of number of tokens per engine_step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="smollm2"} 2.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="smollm2"} 5.0
vllm:iteration_tokens_total_count{engine="0",model_name="smollm2"} 5.0
vllm:iteration_tokens_total_sum{engine="0",model_name="smollm2"} 44.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0"} 1.0
"""


class Served(Collector):
    """A worker's metrics: one of its own, and the engine's."""

    def __init__(self, exposition: str) -> None:
        self._exposition = exposition
        self._own = CollectorRegistry()
        Gauge("process_open_fds", "How many?", registry=self._own).set(7)

    def collect(self) -> list[Metric]:
        return [*self._own.collect(), *engine_metrics(self._exposition, LABELS)]


def served(exposition: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Served(exposition))
    return registry


def test_the_engine_s_metrics_follow_with_the_worker_s_labels() -> None:
    text = generate_latest(served(SAID)).decode()

    labels = 'engine="0",model="smollm2",model_name="smollm2",tier="int4"'
    assert f"vllm:num_requests_running{{{labels}}} 3.0" in text
    assert f"vllm:prompt_tokens_total{{{labels}}} 41.0" in text
    assert "# TYPE vllm:prompt_tokens_total counter" in text
    assert 'le="+Inf",model="smollm2",model_name="smollm2",tier="int4"} 5.0' in text


def test_what_the_worker_has_itself_stays_its_own() -> None:
    text = generate_latest(served(SAID)).decode()

    assert [line for line in text.splitlines() if line.startswith("process_")] == ["process_open_fds 7.0"]
    assert "python_info" not in text


def test_as_openmetrics_they_can_be_read_by_its_parser() -> None:
    write, _ = choose_encoder(readable_accept("application/openmetrics-text"))
    families = {family.name: family for family in text_string_to_metric_families(write(served(SAID)).decode())}  # type: ignore[no-untyped-call]  # prometheus_client

    assert families["vllm:prompt_tokens"].type == "counter"
    assert families["vllm:kv_cache_usage_perc"].samples[0].value == 0.25


@pytest.mark.parametrize(
    "said",
    [
        "",
        "no metrics here",
        "vllm:",
        "vllm:num_requests_running{",
        "vllm:num_requests_running{a=b} 1",
        "vllm:num_requests_running much",
        "# TYPE vllm:x",
        "<html>vllm:</html>",
    ],
)
def test_what_is_no_exposition_leaves_the_worker_s_metrics_whole(said: str) -> None:
    assert generate_latest(served(said)) == generate_latest(served(""))


def test_the_load_is_read_from_them() -> None:
    load = read_load(SAID)

    assert (load.running, load.cache_used, load.tokens, load.exposition) == (3, 0.25, 41, SAID)
