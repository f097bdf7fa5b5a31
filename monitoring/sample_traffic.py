"""Requests of many kinds, so that every metric that can move does."""

from __future__ import annotations

import contextlib
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

_SLOW = "echo:slow " + "many words " * 40
# Prompts that the echo engine is steered by, fields of the body, and headers.
_KINDS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("the quick brown fox jumps over the lazy dog", {}, {}),
    ("Ünïcödé and $%&/ 0x9f3a zq#~ symbols", {"stream": True}, {}),
    ("an important question", {}, {"X-Priority": "9"}),
    ("a question that may wait", {"stream": True}, {"X-Priority": "2"}),
    ("echo:fault breaks", {}, {"X-Max-Tier": "int4"}),
    ("echo:nan is no number", {"logprobs": 1}, {}),
    ("an echo:loop", {"max_tokens": 200}, {}),
    (_SLOW, {"max_tokens": 400}, {"X-Deadline-Ms": "300"}),
    ("for a model that is not there", {"model": "nobody"}, {}),
]


def send(intake: str, model: str, seconds: float) -> int:
    """Send requests for so long, four at a time, and two batches; how many requests were sent."""
    end = time.monotonic() + seconds
    with httpx2.Client(base_url=intake, timeout=30) as client, ThreadPoolExecutor(4) as pool:
        for lines in (4, 2000):  # one that ends soon on any engine, and one that is seen on its way
            _send_batch(client, model, lines)

        def one(number: int) -> None:
            prompt, fields, headers = _KINDS[number % len(_KINDS)]
            body = {"model": model, "prompt": f"{number} {prompt}", "max_tokens": 8, **fields}
            path = "/v1/jobs" if number % 5 == 4 else "/v1/completions"
            with contextlib.suppress(httpx2.TimeoutException):  # a model on processors may take longer
                client.post(path, json=body, headers=headers)

        numbers = itertools.count()
        sent = 0
        while time.monotonic() < end:
            list(pool.map(one, itertools.islice(numbers, 36)))
            sent += 36
            time.sleep(0.2)
        return sent


def _send_batch(client: httpx2.Client, model: str, count: int) -> None:
    body = f'{{"model": "{model}", "prompt": "hello", "max_tokens": 8}}'
    lines = "".join(
        f'{{"custom_id": "{number}", "method": "POST", "url": "/v1/completions", "body": {body}}}\n'
        for number in range(count)
    )
    uploaded = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", lines.encode())})
    wanted = {"input_file_id": uploaded.json()["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    client.post("/v1/batches", json=wanted)
