"""What a failure means: engine faults, a stopped tier, clients that leave, engines elsewhere."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import redis
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.client import Client
from tests.conftest import ROOT, Stack, free_port, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


def test_an_engine_fault_sends_the_job_one_tier_up_until_its_attempts_are_used(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)

    with Client(stack.url) as client:
        broken = client.wait(client.submit(BODY | {"prompt": "echo:fault"})["id"], timeout_s=20)
        fine = client.wait(client.submit(BODY)["id"], timeout_s=20)

    assert (broken["status"], broken["attempts"], broken["tier"]) == ("failed", 3, "fp8")
    assert broken["error"]["code"] == "engine_fault"
    assert fine["tier"] == "int4"


def test_where_no_higher_tier_lives_a_fault_is_tried_again_where_it_was(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    with Client(stack.url) as client:
        broken = client.wait(client.submit(BODY | {"prompt": "echo:fault"})["id"], timeout_s=20)

    assert (broken["status"], broken["attempts"], broken["tier"]) == ("failed", 3, "int4")


def test_with_its_worker_stopped_a_tier_is_served_by_the_next_one_up(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    lowest = stack.worker("int4")
    stack.worker("int8")
    lowest.terminate()
    assert lowest.wait(20) == 0

    with Client(stack.url) as client:
        done = client.wait(client.submit(BODY)["id"], timeout_s=20)

    assert (done["tier"], done["overflowed_from"]) == ("int8", "int4")


def test_a_client_that_leaves_takes_its_awaited_job_with_it(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{stack.url}/v1/completions", json=BODY | {"max_tokens": 50_000}, timeout=0.5)

    wait_until(lambda: len(store.keys("rq:canceled:*")) == 1, "the job is cancelled")
    wait_until(lambda: store.keys("bl:inflight:*") == [], "the worker has let it go")


def test_a_client_that_leaves_its_stream_takes_its_job_with_it(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    body = BODY | {"max_tokens": 50_000, "stream": True}
    with httpx2.stream("POST", f"{stack.url}/v1/completions", json=body) as answer:
        next(answer.iter_lines())

    wait_until(lambda: len(store.keys("rq:canceled:*")) == 1, "the job is cancelled")


def test_a_stream_that_is_handed_on_says_so_instead_of_repeating_itself(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_WORKER__DRAIN_GRACE_S="0.1")
    stack.intake()
    leaving = stack.worker("int4")
    stack.worker("int8")

    body = BODY | {"max_tokens": 400, "stream": True}
    with httpx2.stream("POST", f"{stack.url}/v1/completions", json=body, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        leaving.terminate()
        rest = [line for line in lines if line]

    assert "stream_restarted" in rest[-1]
    assert "data: [DONE]" not in rest


@pytest.mark.parametrize("ceiling", ["fp8", "int4", "nonsense"])
def test_a_job_of_rq_s_cannot_send_itself_where_nobody_looks(
    make_stack: Callable[..., Stack], store: redis.Redis, ceiling: str
) -> None:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    queue = Queue("smollm2:int4:normal", connection=store, serializer=JSONSerializer)

    job = queue.enqueue("workers.generate", body=BODY | {"prompt": "echo:fault"}, ceiling=ceiling)

    wait_until(lambda: job.get_status(refresh=True) == "failed", "the job has come to an end")


def test_a_deadline_ends_a_running_job(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    answer = stack.http.post("/v1/completions", json=BODY | {"max_tokens": 50_000}, headers={"X-Deadline-Ms": "300"})

    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"


def test_an_engine_elsewhere_is_fed_by_its_url(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    there = make_stack()  # any OpenAI-compatible server will do, this intake for one
    there.intake()
    there.worker("fp8")
    text = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    config = tmp_path / "remote.toml"
    config.write_text(text.replace('name = "int4"', f'name = "int4"\nurl = "{there.url}"'), encoding="utf-8")
    here = make_stack(BITLADDER_CONFIG=str(config), BITLADDER_WORKER__ENGINE="remote")
    here.environment["BITLADDER_REDIS__URL"] = there.environment["BITLADDER_REDIS__URL"].replace("/0", "/1")
    here.intake()
    here.worker("int4")

    answer = here.http.post("/v1/completions", json=BODY)
    refused = here.http.post("/v1/completions", json=BODY | {"max_tokens": -1})

    assert answer.json()["choices"][0]["text"] == "aa bb aa"
    assert answer.headers["x-tier"] == "int4"
    assert refused.status_code == 400


@pytest.mark.parametrize("when", ["before it is one", "when it runs"])
def test_a_supervised_engine_dies_with_its_worker(when: str) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, subprocess, time; from bitladder.process.signals import ending_with_parent; "
            "p = subprocess.Popen(ending_with_parent(['sleep', '300'], signal.SIGTERM)); "
            "print(p.pid, flush=True); time.sleep(300)",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    if when == "when it runs":
        wait_until(lambda: _command(child).startswith("sleep"), "the launcher has become its command")

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not _command(child), "the child is gone")


def test_metrics_are_served_by_intake_and_worker(make_stack: Callable[..., Stack]) -> None:
    port = free_port()
    stack = make_stack(BITLADDER_WORKER__METRICS_PORT=str(port))
    stack.intake()
    stack.worker("int4")
    stack.http.post("/v1/completions", json=BODY)

    pages = (f"{stack.url}/metrics", f"http://127.0.0.1:{port}/metrics")
    intake, worker = (httpx2.get(page).text for page in pages)
    odd = [httpx2.get(page, headers={"Accept": "application/openmetrics-text;version=abc"}) for page in pages]
    families = [{family.name: family.type for family in text_string_to_metric_families(answer.text)} for answer in odd]  # type: ignore[no-untyped-call]  # prometheus_client
    ready = httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code

    assert 'bitladder_requests_routed_total{floor="int4",lane="normal",model="smollm2"} 1.0' in intake
    assert 'bitladder_live_workers{model="smollm2",tier="int4"} 1.0' in intake
    assert 'bitladder_jobs_ended_total{model="smollm2",state="finished",tier="int4"} 1.0' in worker
    assert 'bitladder_worker_ready{model="smollm2",tier="int4"} 1.0' in worker
    assert all(answer.headers["content-type"].startswith("application/openmetrics-text") for answer in odd)
    assert [kinds["bitladder_build"] for kinds in families] == ["info", "info"]
    assert [kinds["process_cpu_seconds"] for kinds in families] == ["counter", "counter"]
    assert ready == 200


def test_a_worker_waits_for_a_redis_that_is_not_there_yet(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_REDIS__URL=f"redis://127.0.0.1:{free_port()}/0")
    worker = stack.start("worker", "--tier", "int4")

    time.sleep(3)  # nothing else shows that a process does *not* end

    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(20) == 0


def _command(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return "" if ") Z" in status else Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""
