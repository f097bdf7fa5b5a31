"""Slow, greedy and malformed clients on real sockets: each is cut off in time, and no other client notices."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack, make_settings, wait_until

LIMITS = {
    "BITLADDER_INTAKE__HEADER_TIMEOUT_S": "0.5",
    "BITLADDER_INTAKE__BODY_TIMEOUT_S": "0.5",
    "BITLADDER_INTAKE__STALL_TIMEOUT_S": "0.5",
    "BITLADDER_INTAKE__KEEP_ALIVE_S": "1",
}
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


@pytest.fixture(scope="module")
def one_stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(redis_url, **LIMITS)
    with (tmp_path_factory.mktemp("intake") / "log").open("w+b") as stack.output:
        stack.intake()
        yield stack
        stack.stop()


@pytest.fixture
def stack(one_stack: Stack) -> Iterator[Stack]:
    """Return the intake that all these tests share: none of them may hurt it."""
    yield one_stack
    assert one_stack.http.get("/health").status_code == 200
    assert one_stack.output
    assert b"Traceback" not in Path(one_stack.output.name).read_bytes()


def connected(stack: Stack) -> socket.socket:
    return socket.create_connection(("127.0.0.1", stack.port), timeout=10)


def trickled(stack: Stack, start: bytes, then: bytes, max_s: float = 5) -> tuple[bytes, float]:
    """Send `start`, then `then` again and again, until the intake closes; return what it said, and when."""
    with connected(stack) as client:
        client.sendall(start)
        began, said = time.monotonic(), b""
        while time.monotonic() - began < max_s:
            ready, _, _ = select.select([client], [], [], 0.05)
            try:
                if ready:
                    said += (chunk := client.recv(65536))
                    if not chunk:
                        return said, time.monotonic() - began
                client.sendall(then)
            except ConnectionError:
                return said, time.monotonic() - began
    raise AssertionError(f"still open after {max_s} s; said {said!r}")


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), str(json.loads(body)["error"]["code"])


def test_a_head_that_does_not_end_in_time_is_cut_off(stack: Stack) -> None:
    said, after_s = trickled(stack, b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"a")

    assert error_of(said) == (408, "request_timeout")
    assert 0.4 < after_s < 3


@pytest.mark.parametrize("then", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed(stack: Stack, then: bytes) -> None:
    said, after_s = trickled(stack, b"", then)

    assert said == b""
    assert after_s < 3


def test_an_idle_connection_is_not_kept_open_by_a_byte_now_and_then(stack: Stack) -> None:
    said, _ = trickled(stack, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n")

    assert said.startswith(b"HTTP/1.1 200 OK")
    assert said.count(b"HTTP/1.1") == 1


def test_a_body_that_trickles_is_cut_off(stack: Stack) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"

    said, after_s = trickled(stack, head, b" ")

    assert error_of(said) == (408, "request_timeout")
    assert 0.4 < after_s < 3


def test_a_client_that_disconnects_within_its_body_causes_no_internal_error(stack: Stack) -> None:
    with connected(stack) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")

    assert stack.http.get("/health").status_code == 200  # and the fixture reads the log


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n",
        b"GET /health HTTP/1.1\r\nX-Large: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /health?" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["many", "large", "long"],
)
def test_a_head_above_the_limits_is_refused(stack: Stack, head: bytes) -> None:
    said, _ = trickled(stack, head, b"")

    assert error_of(said) == (431, "headers_too_large")


def test_an_endless_header_is_refused_before_it_fills_the_memory(stack: Stack) -> None:
    said, after_s = trickled(stack, b"GET /health HTTP/1.1\r\nX-Endless: ", b"a" * 20_000)

    assert after_s < 0.5  # so it was the size, not the time
    assert said == b"" or error_of(said) == (431, "headers_too_large")  # a reset may overtake the answer


def test_data_that_is_not_http_is_refused_in_the_usual_form(stack: Stack) -> None:
    said, _ = trickled(stack, b"\x16\x03\x01\x02\x00", b"")

    assert error_of(said) == (400, "invalid_request")


def test_a_client_that_does_not_read_its_answers_is_cut_off(stack: Stack) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", stack.port))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)  # more than the kernel holds for a client

        wait_until(lambda: not is_open_at_the_server(client), "the intake gives up")


def is_open_at_the_server(client: socket.socket) -> bool:
    """Return whether the intake has not closed yet; its client cannot tell, as what is sent already stays unread."""
    near, far = (f"0100007F:{port:04X}" for port in (client.getpeername()[1], client.getsockname()[1]))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return any(row[1:4] == [near, far, "01"] for row in rows)


def test_connections_above_the_limit_are_refused_with_the_reason(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_INTAKE__MAX_CONNECTIONS="4")
    stack.intake()
    idle = [connected(stack) for _ in range(4)]

    said, _ = trickled(stack, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"")
    for client in idle:
        client.close()

    assert error_of(said) == (503, "too_many_connections")
    assert b"retry-after: 1" in said
    wait_until(lambda: stack.http.get("/health").status_code == 200, "there is room again")


def asked(client: socket.socket) -> bytes:
    """Ask for /health and return the whole answer: all that the intake says here ends with a brace."""
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    said = b""
    while not said.endswith(b"}"):
        chunk = client.recv(65536)
        assert chunk, f"closed after {said!r}"
        said += chunk
    return said


def test_idle_connections_are_closed_for_new_ones(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_INTAKE__MAX_CONNECTIONS="4")
    stack.intake()
    stack.http.close()
    kept = [connected(stack) for _ in range(4)]
    assert {asked(client)[:15] for client in kept} == {b"HTTP/1.1 200 OK"}

    def newcomer() -> bytes:
        with connected(stack) as client:
            return asked(client)

    too_early = newcomer()
    wait_until(lambda: newcomer().startswith(b"HTTP/1.1 200 OK"), "a kept connection has made room")

    assert error_of(too_early) == (503, "too_many_connections")
    assert kept[0].recv(65536) == b""  # the one that was kept for longest
    assert {asked(client)[:15] for client in kept[1:]} == {b"HTTP/1.1 200 OK"}
    for client in kept:
        client.close()


def test_an_idle_connection_outlives_those_of_common_proxies_and_clients() -> None:
    longest_s = {"nginx": 60, "Go": 90, "Caddy": 120, "AWS": 60}

    assert make_settings("redis://127.0.0.1:1/0").intake.keep_alive_s > max(longest_s.values())


@pytest.mark.parametrize("origin", ["https://example.org", "http://127.0.0.1:8000", "null"])
def test_a_web_page_cannot_use_an_intake_without_keys(stack: Stack, origin: str) -> None:
    headers = {"Origin": origin, "Content-Type": "text/plain"}  # what a form may send anywhere

    refused = stack.http.post("/v1/jobs", content=json.dumps(BODY), headers=headers)

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "web_page_refused")


NESTED = b'{"model": "smollm2", "prompt": "x", "extra": %s}'


@pytest.mark.parametrize(
    "body",
    [
        NESTED % (b"[" * 64 + b"]" * 64),
        NESTED % (b'{"a":' * 64 + b"1" + b"}" * 64),
        NESTED % (b"[" * 200_000 + b"]" * 200_000),
        json.dumps(BODY | {"prompt": ["x"] * 3000}).encode(),
        json.dumps(BODY | {"prompt": [1] * 3000 + ["x"]}).encode(),
        json.dumps({"model": "smollm2", "messages": [{"role": "user", "content": "x"}] * 3000}).encode(),
        b'{"model": "smollm2", "prompt": "\\ud800"}',
        b'{"model": "smollm2", "prompt": "\xff"}',
        b'{"\xff": 1}',
    ],
    ids=["lists", "objects", "very deep", "prompts", "mixed", "messages", "surrogate", "utf-8", "utf-8 name"],
)
def test_a_body_beyond_measure_is_refused(stack: Stack, body: bytes) -> None:
    answer = stack.http.post("/v1/jobs", content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": "a \u0000 b"},
        {"prompt": "[{" * 5000},
        {"prompt": '\\"[' * 5000},
        {"prompt": list(range(5000))},
        {"extra": [[1]] * 500},
    ],
    ids=["NUL", "brackets", "escapes", "token ids", "wide"],
)
def test_an_odd_body_within_the_limits_is_accepted(stack: Stack, more: dict[str, Any]) -> None:
    assert stack.http.post("/v1/jobs", json=BODY | more).status_code == 202


@pytest.mark.parametrize(
    "job_id", ["%00", "a%2Fb", "%7Bx%7D", "..%2f..", "a:b", "%C3%A9", "x" * 500, "%ff", "a%0d%0ab"]
)
def test_an_odd_id_is_an_unknown_job(stack: Stack, job_id: str) -> None:
    said, _ = trickled(stack, f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), b"")

    assert error_of(said)[0] == 404


@pytest.mark.parametrize("host", [b"[", b"a b", b"", b"\xff"])
@pytest.mark.parametrize("path", [b"/nowhere", b"/v1/jobs/", b"/v1/models/x"])
def test_an_odd_host_causes_no_internal_error(stack: Stack, path: bytes, host: bytes) -> None:
    said, _ = trickled(stack, b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n", b"")

    assert int(said.split(b" ")[1]) in (400, 404)
