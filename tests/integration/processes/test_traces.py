"""Traces over a real stack, as a collector of OTLP takes them in: at most five spans a job, linked across the queue."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import yaml

from tests.conftest import Stack, free_port, wait_until
from tests.examples.operating.otlp_collector import Collector, Seen

BODY = {"model": "smollm2", "prompt": "Zyxwv-ninety-seven-sealions", "max_tokens": 3}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASKED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def stack(redis_url: str, collector: Collector) -> Iterator[Stack]:
    stack = Stack(
        redis_url,
        BITLADDER_TRACING__ENABLED="true",
        BITLADDER_TRACING__ENDPOINT=collector.url,
        BITLADDER_TRACING__BATCH_RATIO="1",
    )
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    for tier in ("int8", "int4"):  # the port of the metrics is that of int4
        stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(free_port())
        stack.worker(tier)
    yield stack
    stack.kill()


def spans_of(collector: Collector, job_id: str, count: int) -> list[Seen]:
    wait_until(lambda: len(collector.of_job(job_id)) >= count, f"{count} spans of the job have come")
    return sorted(collector.of_job(job_id), key=lambda span: span.start_ns)


def test_an_awaited_and_a_streamed_request_have_four_spans_in_their_client_s_trace(
    stack: Stack, collector: Collector
) -> None:
    for stream in (False, True):
        answer = stack.http.post("/v1/completions", json=BODY | {"stream": stream}, headers=ASKED)
        submit, wait, execute, deliver = spans_of(collector, answer.headers["x-job-id"], 4)

        assert [span.name for span in (submit, wait, execute, deliver)] == ["submit", "wait", "execute", "deliver"]
        assert {span.trace for span in (submit, wait, execute, deliver)} == {TRACE}
        assert submit.parent == "00f067aa0ba902b7"
        assert {wait.parent, execute.parent, deliver.parent, *wait.links} == {submit.span}
        assert (submit.service, wait.service, execute.service) == (
            "bitladder-intake",
            "bitladder-worker",
            "bitladder-worker",
        )
        asked = submit.attributes
        assert (asked["gen_ai.operation.name"], asked["gen_ai.request.model"]) == ("text_completion", "smollm2")
        assert asked["bitladder.request.id"] == answer.headers["x-request-id"]
        assert execute.attributes["gen_ai.usage.output_tokens"] == 3
        assert (execute.attributes["bitladder.tier"], execute.attributes["bitladder.attempts"]) == ("int4", 1)
        assert wait.end_ns - 5_000_000 <= execute.start_ns <= execute.end_ns
        assert "sealions" not in repr(collector.spans)


def test_a_job_that_is_polled_and_a_line_of_a_batch_have_three_spans(stack: Stack, collector: Collector) -> None:
    job_id = stack.http.post("/v1/jobs", json=BODY).raise_for_status().json()["id"]
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": BODY}
    content = str(line).replace("'", '"').encode()
    file = stack.http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"}).json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = stack.http.post("/v1/batches", json=asked).raise_for_status().json()["id"]
    wait_until(lambda: stack.http.get(f"/v1/batches/{batch}").json()["status"] == "completed", "the batch is done")

    names = ["execute", "submit", "wait"]  # a wait begins by the server's clock, in whole milliseconds
    assert sorted(span.name for span in spans_of(collector, job_id, 3)) == names

    def of_batch() -> list[Seen]:
        return [span for span in collector.spans if span.attributes.get("bitladder.lane") == "batch"]

    wait_until(lambda: bool(of_batch()), "a span of the batch has come")
    line_id = of_batch()[0].attributes["bitladder.job.id"]
    assert sorted(span.name for span in spans_of(collector, line_id, 3)) == names


def test_a_job_that_is_retried_to_its_last_attempt_has_five_spans(stack: Stack, collector: Collector) -> None:
    answer = stack.http.post("/v1/completions", json=BODY | {"prompt": "echo:fault"})
    spans = spans_of(collector, answer.headers["x-job-id"], 5)

    assert Counter(span.name for span in spans) == {"submit": 1, "wait": 1, "execute": 2, "deliver": 1}
    first, last = (span for span in spans if span.name == "execute")
    assert (first.attributes["bitladder.attempts"], first.attributes["error.type"]) == (1, "engine_fault")
    assert (last.attributes["bitladder.attempts"], last.is_error) == (3, True)
    later = stack.http.post(
        "/v1/completions", json=BODY | {"prompt": "all tiers again"}, headers={"X-Min-Tier": "int8"}
    )
    spans_of(collector, later.headers["x-job-id"], 4)  # what was sent before it has come, too
    assert len(collector.of_job(answer.headers["x-job-id"])) == 5


@pytest.mark.skipif(not shutil.which("prometheus"), reason="`make servers` installs Prometheus")
def test_prometheus_takes_in_exemplars_that_lead_from_a_histogram_to_its_traces(stack: Stack, tmp_path: Path) -> None:
    worker = f"127.0.0.1:{stack.environment['BITLADDER_WORKER__METRICS_PORT']}"
    stack.http.post("/v1/completions", json=BODY, headers=ASKED).raise_for_status()
    port, targets = free_port(), [stack.url.removeprefix("http://"), worker]
    scrapes = [{"job_name": "all", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": scrapes}), encoding="utf-8")
    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"]
    prometheus = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        assert exemplars(port) >= {"bitladder_awaited_seconds_bucket", *SHOWN_BY_WORKER}
        health = {target["health"] for target in asked(port, "targets")["data"]["activeTargets"]}
        assert health == {"up"}
    finally:
        prometheus.terminate()
        prometheus.wait(30)


SHOWN_BY_WORKER = {f"bitladder_{name}_seconds_bucket" for name in ("queue_wait", "run", "job")}


def asked(port: int, path: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = httpx2.get(f"http://127.0.0.1:{port}/api/v1/{path}").json()
    except (httpx2.HTTPError, ValueError):
        return {}
    return answer


def exemplars(port: int) -> set[str]:
    """Return the series of which Prometheus has an exemplar with the trace, once it has some of both processes."""
    now, seen = int(time.time()), set[str]()

    def is_there() -> bool:
        query = f'query_exemplars?query={{__name__=~"bitladder_.*_bucket"}}&start={now - 300}&end={now + 300}'
        rows = asked(port, query).get("data") or []
        traced = [row for row in rows if TRACE in {item["labels"]["trace_id"] for item in row["exemplars"]}]
        seen.update(row["seriesLabels"]["__name__"] for row in traced)
        return seen >= {"bitladder_awaited_seconds_bucket", *SHOWN_BY_WORKER}

    wait_until(is_there, "Prometheus has exemplars of intake and worker", 40)
    return seen


def test_what_a_client_does_not_sample_is_not_sent_and_a_collector_that_is_gone_costs_spans_alone(
    stack: Stack, collector: Collector
) -> None:
    unsampled = stack.http.post(
        "/v1/completions", json=BODY, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}
    )
    sampled = stack.http.post("/v1/completions", json=BODY)
    spans_of(collector, sampled.headers["x-job-id"], 4)
    assert collector.of_job(unsampled.headers["x-job-id"]) == []

    collector.stop()
    assert stack.http.post("/v1/completions", json=BODY).status_code == 200
    port = stack.environment["BITLADDER_WORKER__METRICS_PORT"]

    def failed() -> bool:
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        return 'bitladder_spans_total{result="failed"} 2.0' in text

    wait_until(failed, "the worker counts the spans that it could not send", 20)
