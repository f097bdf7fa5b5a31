"""Clients that close their connections: their jobs leave the engine at once, or when nobody has come back in time."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.conftest import Stack, echo_tokens, wait_until

BODY: dict[str, Any] = {"model": "smollm2", "prompt": " ".join(f"w{number}" for number in range(45)), "max_tokens": 45}
STREAM = BODY | {"stream": True}


def ask(port: int, body: dict[str, Any]) -> socket.socket:
    """Send a completion request over a connection of its own."""
    client = socket.create_connection(("127.0.0.1", port), 10)
    content = json.dumps(body).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    client.sendall(head % len(content) + content)
    return client


def begun(store: redis.Redis, known: set[bytes]) -> str:
    """Wait for a job that runs and was not known, and note it."""

    def fresh() -> list[bytes]:
        keys: Any = store.keys("rq:job:*")
        return [key for key in set(keys) - known if store.hget(key, "status") == b"started"]

    wait_until(lambda: bool(fresh()), "the job runs")
    (key,) = fresh()
    known.add(key)
    return key.decode().removeprefix("rq:job:")


def read_away(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65536):
            pass


@pytest.mark.parametrize("is_stream", [False, True], ids=["awaited", "streamed"])
def test_what_a_client_has_left_leaves_a_full_engine_within_a_second(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path, is_stream: bool
) -> None:
    log = tmp_path / "executions"
    stack = make_stack(BITLADDER_ECHO__EXECUTION_LOG=str(log))
    stack.intake()
    stack.worker("int4")
    clients = [ask(stack.port, STREAM | {"max_tokens": 4000}) for _ in range(15)]  # of 16 slots
    readers = [threading.Thread(target=read_away, args=(client,)) for client in clients]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(store.keys("rq:job:*")) == 15, "the others are there")
    wait_until(lambda: log.read_bytes().count(b'"begin"') == 15, "the engine is busy")
    keys: Any = store.keys("rq:job:*")

    leaving = ask(stack.port, BODY | {"max_tokens": 4000, "stream": is_stream})
    job_id = begun(store, set(keys))
    wait_until(lambda: job_id.encode() in log.read_bytes(), "its execution has begun")
    leaving.close()
    left_ms = time.time() * 1000

    def ends() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_bytes().splitlines()]
        return [line for line in lines if line["job_id"] == job_id and line["event"] == "end"]

    wait_until(lambda: bool(ends()), "it has left the engine")
    for client in clients:
        client.shutdown(socket.SHUT_RDWR)
        client.close()
    for reader in readers:
        reader.join()

    assert ends()[0]["how"] == "aborted"
    assert ends()[0]["at_ms"] - left_ms < 1000
    wait_until(lambda: store.hget(f"rq:job:{job_id}", "status") == b"canceled", "it is cancelled")


def test_a_job_whose_client_has_left_is_kept_where_somebody_reads_it_before_its_time_is_over(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_INTAKE__ABORT_AFTER_S="1", BITLADDER_ECHO__TOKENS_PER_S="15")
    other = make_stack(BITLADDER_INTAKE__ABORT_AFTER_S="never")
    stack.intake()
    other.intake()
    stack.worker("int4")
    known: set[bytes] = set()
    ids = []
    for one in (stack, stack, stack, other):
        client = ask(one.port, STREAM)
        ids.append(begun(store, known))
        client.close()
    left_s = time.monotonic()
    alone, here, there, for_ever = ids

    def read(one: Stack, job_id: str) -> str:
        return httpx2.get(f"{one.url}/v1/jobs/{job_id}/stream", timeout=30).text

    def state(job_id: str) -> Any:  # noqa: ANN401
        return store.hget(f"rq:job:{job_id}", "status")

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read, stack, here), pool.submit(read, other, there)]
        wait_until(lambda: state(alone) == b"canceled", "nobody came back for it")
        waited_s = time.monotonic() - left_s
        texts = [future.result(30) for future in reading]
    wait_until(lambda: state(for_ever) == b"finished", "it ran to its end")

    assert waited_s > 0.5
    assert [state(job_id) for job_id in (here, there)] == [b"finished"] * 2
    for text in texts:
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        assert "".join(event["choices"][0]["text"] for event in events) == "".join(echo_tokens(45))
        assert text.endswith("data: [DONE]\n\n")
