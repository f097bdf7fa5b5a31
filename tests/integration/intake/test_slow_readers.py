"""Clients that do not read their streams: an intake keeps little for each, and each reads all of it later."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import ROOT, Stack, wait_until

STREAMS = 30
WORD, WORDS = "w" * 8000, 400
BODY = {"model": "smollm2", "prompt": WORD, "max_tokens": WORDS, "stream": True}
# Each of them has 3.3 MB to read; an inbox, a read of what is stored and what a socket takes are some 0.4 MB.
MAX_MB = 40


def memory_mb(pid: int, which: str = "VmRSS") -> float:
    """Return what a process has in memory, or had at most (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def asked(stack: Stack, path: str = "/v1/completions", **fields: object) -> socket.socket:
    """Ask for a stream, and read nothing of it; a field that is None is left out."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect(("127.0.0.1", stack.port))
    body = json.dumps({name: value for name, value in (BODY | fields).items() if value is not None}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def read(client: socket.socket) -> bytes:
    said = bytearray()
    with client:
        while chunk := client.recv(1 << 20):
            said += chunk
    return bytes(said)


def test_thirty_streams_that_nobody_reads_cost_an_intake_little_and_are_read_whole_later(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    # On a busy machine all answers together take longer than a client may take nothing of its own.
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="1000", BITLADDER_INTAKE__STALL_TIMEOUT_S="300")
    stack.intake()
    intake = stack.processes[0].pid
    stack.worker("int4")
    before = memory_mb(intake, "VmHWM")

    clients = [asked(stack) for _ in range(STREAMS)]
    wait_until(lambda: store.zcard("rq:finished:smollm2:int4:normal") == STREAMS, "all answers are there", 60)
    unread = memory_mb(intake, "VmHWM") - before
    answers = [read(client) for client in clients]
    all_read = memory_mb(intake, "VmHWM") - before

    assert [answer.count(WORD.encode()) for answer in answers] == [WORDS] * STREAMS
    assert all(b"data: [DONE]" in answer for answer in answers)
    assert (unread < MAX_MB, all_read < MAX_MB) == (True, True), f"{unread:g} MB, then {all_read:g} MB"


def completion(prompt: str) -> dict[str, Any]:
    return {"path": "/v1/completions", "prompt": prompt, "max_tokens": 2}


def response(prompt: str) -> dict[str, Any]:
    return {"path": "/v1/responses", "input": prompt, "max_output_tokens": 2, "prompt": None, "max_tokens": None}


@pytest.mark.parametrize("asking", [completion, response])
def test_a_stream_keeps_its_prompt_no_longer_than_until_it_begins(
    asking: Callable[[str], dict[str, Any]], make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    # The C library releases large blocks at once, so that the process has in memory what it keeps. The setting is read
    # where a process starts: with a path that differs, this one is started and not forked.
    large = {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": f"{ROOT}{os.pathsep}"}
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="0.1", **large)
    stack.intake()
    intake = stack.processes[0].pid
    stack.worker("int4")
    clients = [asked(stack, **asking("a"))]  # what the first stream loads stays
    wait_until(lambda: sum(1 for _ in store.scan_iter("bl:stream:*")) == 1, "the first has begun")
    before = memory_mb(intake)

    clients += [asked(stack, **asking(" ".join([WORD] * 100))) for _ in range(15)]  # 800 KB each
    wait_until(lambda: sum(1 for _ in store.scan_iter("bl:stream:*")) == 16, "all of them have begun")
    try:
        wait_until(lambda: memory_mb(intake) < before + 8, "the prompts are forgotten", 5)
    finally:
        for client in clients:
            client.close()
