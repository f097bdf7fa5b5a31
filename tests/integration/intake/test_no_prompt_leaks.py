"""What users write stays out of logs, metrics and descriptions, whichever way a request goes and ends."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.client import Client, JobError
from tests.conftest import Stack, free_port, wait_until
from tests.integration.intake.test_security import KEYS, bearer, keys_in_toml

MARKER = "Zyxwv-ninety-seven-sealions"
BODY = {"model": "smollm2", "prompt": f"aa {MARKER} bb", "max_tokens": 3}
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": MARKER}], "max_tokens": 3}


def test_a_prompt_is_in_no_log_metric_or_description(
    make_stack: Callable[..., Stack], store: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    stack = make_stack(
        BITLADDER_AUTH__KEYS=keys_in_toml(),
        BITLADDER_WORKER__METRICS_PORT=str(port),
        BITLADDER_WORKER__FAULT_RATIO="1",  # the faults here are meant: no engine is started again for them
    )
    stack.http.headers.update(bearer("ops"))
    with (tmp_path / "log").open("wb") as stack.output:
        stack.intake()
        worker = stack.worker("fp8")  # the top tier: what breaks cannot escalate
        with Client(stack.url, api_key=KEYS["ops"]) as client:
            _answered(stack, client)
            _refused(stack)
            _left(stack)
            _broken(stack, client, store)
        metrics = stack.http.get("/metrics").text + httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        hashes = _hashes(redis_url)
        worker.terminate()
        worker.wait(20)
        stack.stop()

    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "job dead-lettered" in log  # or this test has not seen a worker's fault
    assert "job requeued" in log
    assert MARKER not in log
    assert MARKER not in metrics
    assert "bitladder_requests_routed" in metrics
    descriptions = [fields["description"] for name, fields in hashes.items() if "description" in fields]
    assert len(descriptions) > 8
    assert not any(MARKER in text for text in descriptions)
    for key in KEYS.values():
        assert key not in log
        assert key not in metrics
        assert key not in json.dumps(hashes)


def _answered(stack: Stack, client: Client) -> None:
    assert stack.http.post("/v1/completions", json=BODY).status_code == 200
    assert stack.http.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert MARKER in "".join(client.stream(BODY))
    done = client.submit(BODY, idempotency_key="once")["id"]
    assert client.wait(done, timeout_s=10)["status"] == "finished"
    with contextlib.suppress(JobError):  # the key is taken
        client.submit(BODY | {"max_tokens": 4}, idempotency_key="once")
    running = client.submit(BODY | {"max_tokens": 50_000})["id"]
    wait_until(lambda: client.result(running)["status"] == "running", "the job runs")
    client.cancel(running)
    assert client.wait(running, timeout_s=10)["status"] == "cancelled"
    late = client.submit(BODY | {"max_tokens": 50_000}, deadline_ms=300)["id"]
    assert client.wait(late, timeout_s=10)["status"] == "expired"


def _refused(stack: Stack) -> None:
    """Send what is refused at the intake: some answers repeat it to its sender, and nobody else hears of it."""
    bad: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"content": f'{{"prompt": "{MARKER}'}),
        ("/v1/completions", {"json": BODY | {"model": MARKER}}),
        ("/v1/completions", {"json": BODY | {"prompt": {MARKER: 1}}}),
        ("/v1/completions", {"json": BODY | {"max_tokens": MARKER}}),
        ("/v1/chat/completions", {"json": CHAT | {"messages": MARKER}}),
        ("/v1/completions", {"json": BODY, "headers": {"X-Priority": MARKER}}),
        ("/v1/completions", {"json": BODY, "headers": {"Authorization": f"Bearer {MARKER}"}}),
        (f"/v1/jobs?lane={MARKER}", {"json": BODY}),
        (f"/v1/jobs?endpoint={MARKER}", {"json": BODY}),
        (f"/{MARKER}", {"json": BODY}),
        ("/v1/jobs", {"json": BODY | {"prompt": MARKER * 80_000}}),
    ]
    for path, arguments in bad:
        assert 400 <= stack.http.post(path, **arguments).status_code < 500, path
    assert stack.http.get(f"/v1/jobs/{MARKER}").status_code == 404
    assert stack.http.get(f"/v1/models/{MARKER}").status_code == 404


def _left(stack: Stack) -> None:
    """Break off: in the middle of a body, of a head and of a stream, and send what is no HTTP."""
    key = f"Authorization: Bearer {KEYS['ops']}\r\n"
    for sent in (
        f"POST /v1/jobs HTTP/1.1\r\n{key}Content-Length: 999\r\n\r\n{MARKER}",
        f"GET /{MARKER}",
        f"{MARKER}\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", stack.port)) as client:
            client.sendall(sent.encode())
    with stack.http.stream("POST", "/v1/completions", json=BODY | {"stream": True, "max_tokens": 50_000}) as answer:
        lines = answer.iter_lines()
        next(lines)


def _broken(stack: Stack, client: Client, store: redis.Redis) -> None:
    """Let the engine fail, and plant what is no job of ours."""
    faulty = client.submit(BODY | {"prompt": f"echo:fault {MARKER}"})["id"]
    queue = Queue("smollm2:int4:normal", connection=store, serializer=JSONSerializer)
    planted = [
        queue.enqueue("workers.generate", body={"model": "smollm2", "messages": [MARKER]}),
        queue.enqueue(f"os.{MARKER}", description="planted"),
        queue.enqueue("workers.generate", MARKER),
        queue.enqueue("workers.generate", body=BODY, endpoint=MARKER),
    ]
    assert client.wait(faulty, timeout_s=30)["status"] == "failed"
    wait_until(lambda: all(job.get_status(refresh=True) == "failed" for job in planted), "planted jobs are over", 30)
    assert stack.http.get("/v1/dead-letters").status_code == 200


def _hashes(url: str) -> dict[str, dict[str, str]]:
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace") as store:
        return {str(name): store.hgetall(name) for name in store.keys("*") if store.type(name) == "hash"}
