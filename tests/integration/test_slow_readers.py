"""Clients that do not read their streams: an intake keeps little for each, and each reads all of it later."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import redis

from tests.conftest import Stack, wait_until

STREAMS = 30
WORD, WORDS = "w" * 8000, 400
BODY = {"model": "smollm2", "prompt": WORD, "max_tokens": WORDS, "stream": True}
# Each of them has 3.3 MB to read; an inbox, a read of what is stored and what a socket takes are some 0.4 MB.
MOST_MB = 20


def most_memory_mb(pid: int) -> float:
    """Return what a process had in memory at most."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def asked(stack: Stack) -> socket.socket:
    """Ask for a stream, and read nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", stack.port))
    body = json.dumps(BODY).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
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
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="1000")
    stack.intake()
    intake = stack.processes[0].pid
    stack.worker("int4")
    before = most_memory_mb(intake)

    clients = [asked(stack) for _ in range(STREAMS)]
    wait_until(lambda: store.zcard("rq:finished:smollm2:int4:normal") == STREAMS, "all answers are there", 60)
    unread = most_memory_mb(intake) - before
    answers = [read(client) for client in clients]
    all_read = most_memory_mb(intake) - before

    assert [answer.count(WORD.encode()) for answer in answers] == [WORDS] * STREAMS
    assert all(b"data: [DONE]" in answer for answer in answers)
    assert (unread < MOST_MB, all_read < MOST_MB) == (True, True), f"{unread:g} MB, then {all_read:g} MB"
