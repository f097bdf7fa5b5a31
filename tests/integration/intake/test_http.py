"""What HTTP/1.1 leaves to a server: trailers, upgrades of the protocol, paths with a slash at their end."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.conftest import Stack
from tests.offers import post_by_curl, post_by_java

BODY = json.dumps({"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}).encode()
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
IN_CHUNKS = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)


@dataclass
class Answer:
    """One answer of the intake."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def floor(self) -> str:
        return str(json.loads(self.body)["floor"])

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


@pytest.fixture(scope="module")
def one_stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(redis_url)
    with (tmp_path_factory.mktemp("intake") / "log").open("w+b") as stack.output:
        stack.intake()
        yield stack
        stack.stop()


@pytest.fixture
def stack(one_stack: Stack) -> Iterator[Stack]:
    """Return the intake that all these tests share: none of them may hurt it, or make it say anything."""
    assert one_stack.output
    log = Path(one_stack.output.name)
    before = log.stat().st_size
    yield one_stack
    assert one_stack.http.get("/health").status_code == 200
    assert log.read_bytes()[before:] == b""


def connected(stack: Stack) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", stack.port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def answers(stack: Stack, *sent: bytes, count: int = 1) -> list[Answer]:
    """Send chunks on one connection and read so many answers."""
    with connected(stack) as client, client.makefile("rb") as file:
        for chunk in sent:
            client.sendall(chunk)
        return list(itertools.islice(read_answers(file), count))


def read_answers(file: BinaryIO) -> Iterator[Answer]:
    while line := file.readline():
        headers = {}
        while field := file.readline().strip():
            name, _, value = field.decode("latin-1").partition(": ")
            headers[name] = value
        yield Answer(int(line.split(b" ")[1]), headers, file.read(int(headers["content-length"])))


def sent_until_cut_off(stack: Stack, head: bytes, chunk: bytes, most: int = 64 * 1024 * 1024) -> int:
    """Send chunks until the intake closes; return how many bytes the kernel took."""
    with connected(stack) as client, contextlib.suppress(ConnectionError):
        client.sendall(head)
        sent = 0
        while sent < most:
            client.sendall(chunk)
            sent += len(chunk)
    return sent


def resident_mib(stack: Stack) -> float:
    status = Path(f"/proc/{stack.processes[0].pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


ENDLESS = {
    "one trailer": b"a" * 65_536,
    "many trailers": b"X-More: %s\r\n" % (b"a" * 100) * 600,
    "blank lines": b"\r\n" * 30_000,
}


@pytest.mark.parametrize("chunk", ENDLESS.values(), ids=ENDLESS)
def test_trailers_without_end_are_cut_off_before_they_fill_the_memory(stack: Stack, chunk: bytes) -> None:
    before = resident_mib(stack)
    start = b"\r\n" if chunk.startswith(b"\r\n") else b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-First: "

    sent = [sent_until_cut_off(stack, HEALTH + start, chunk) for _ in range(3)]

    assert max(sent) < 16 * 1024 * 1024  # what the kernel holds on the way; the intake took little of it
    assert resident_mib(stack) - before < 16


def test_an_endless_chunk_line_is_cut_off(stack: Stack) -> None:
    head = HEALTH + b"Transfer-Encoding: chunked\r\n\r\n5;extension="

    assert sent_until_cut_off(stack, head, b"a" * 65_536) < 16 * 1024 * 1024


def test_trailers_above_the_limits_are_refused_in_the_usual_form(stack: Stack) -> None:
    trailers = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(500))

    with connected(stack) as client, client.makefile("rb") as file:
        client.sendall(CHUNKED + b"\r\n" + IN_CHUNKS[:-3])
        client.sendall(b"0\r\n" + trailers[:400_000])
        found = next(read_answers(file))

    assert (found.status, found.code) == (431, "headers_too_large")


def test_a_trailer_is_no_header(stack: Stack) -> None:
    plain = answers(stack, CHUNKED + b"\r\n", IN_CHUNKS, b"\r\n")
    with_trailers = answers(stack, CHUNKED + b"Trailer: X-Min-Tier\r\n\r\n", IN_CHUNKS, b"X-Min-Tier: fp8\r\n\r\n")
    with_header = answers(stack, CHUNKED + b"X-Min-Tier: fp8\r\n\r\n", IN_CHUNKS, b"\r\n")

    assert [found.status for found in (*plain, *with_trailers, *with_header)] == [202] * 3
    assert plain[0].floor == with_trailers[0].floor == "int4"
    assert with_header[0].floor == "fp8"


def test_a_request_that_was_answered_before_its_body_ended_is_not_answered_twice(stack: Stack) -> None:
    for rest in (b"0\r\nX: " + b"a" * 400_000, b"not a chunk\r\n\r\n"):
        with connected(stack) as client, client.makefile("rb") as file:
            client.sendall(HEALTH + b"Transfer-Encoding: chunked\r\n\r\n")
            found = read_answers(file)
            first = next(found)
            with contextlib.suppress(ConnectionError):
                client.sendall(rest)
                assert list(found) == []

        assert first.status == 200


# As curl 7.88 and Java 17's HttpClient offer HTTP/2 to a server without TLS, and as a page opens a WebSocket.
OFFERS = {
    "curl": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "java": b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "tls": b"Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
}
LONG = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Min-Tier: fp8\r\nContent-Length: %d\r\n" % len(BODY)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_upgrade_header_is_ignored_and_the_request_served(stack: Stack, offer: bytes) -> None:
    with_length = LONG + offer + b"\r\n" + BODY
    in_chunks = CHUNKED + offer + b"\r\n" + IN_CHUNKS + b"\r\n"
    without_body = HEALTH + offer + b"\r\n"

    found = answers(stack, with_length, in_chunks, without_body, count=3)
    at_once = answers(stack, with_length + in_chunks + without_body, count=3)
    byte_by_byte = answers(stack, *(bytes([byte]) for byte in with_length))

    assert [one.status for one in (*found, *at_once, *byte_by_byte)] == [202, 202, 200, 202, 202, 200, 202]
    assert [one.floor for one in (*found[:2], *at_once[:2], *byte_by_byte)] == ["fp8", "int4", "fp8", "int4", "fp8"]


def test_a_head_above_the_limits_is_refused_with_an_upgrade_header_too(stack: Stack) -> None:
    found = answers(stack, HEALTH + OFFERS["curl"] + b"X-Large: " + b"a" * 40_000 + b"\r\n\r\n")

    assert [(one.status, one.code) for one in found] == [(431, "headers_too_large")]


@pytest.mark.parametrize("target", [b"example.org:443", b"/health"])
def test_the_intake_is_no_proxy(stack: Stack, target: bytes) -> None:
    found = answers(stack, b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTH + b"\r\n", count=2)

    assert [(one.status, one.code) for one in found] == [(400, "invalid_request")]


def test_curl_may_offer_http2(stack: Stack) -> None:
    assert post_by_curl(BODY.decode(), f"{stack.url}/v1/jobs")[0]["status"] == "queued"


def test_java_s_client_may_offer_http2(stack: Stack, tmp_path: Path) -> None:
    assert post_by_java(tmp_path, BODY.decode(), f"{stack.url}/v1/jobs")[0]["status"] == "queued"


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/models/", "/health/", "/v1/models/smollm2/", "/nowhere/"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_with_a_slash_too_many_is_unknown_and_not_redirected(stack: Stack, method: str, path: str) -> None:
    found = answers(stack, f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())

    assert [(one.status, one.code) for one in found] == [(404, "unknown_url")]
    assert "location" not in found[0].headers


@pytest.mark.parametrize("value", ["1.5", "-1", "1e1", "many", "", "1000000"])
@pytest.mark.parametrize(
    "path", ["batches?limit", "files?limit", "webhook_endpoints?limit", "dead-letters?limit", "costs?days"]
)
def test_what_counts_entries_or_days_is_a_whole_number(stack: Stack, path: str, value: str) -> None:
    refused = stack.http.get(f"/v1/{path}={value}")

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, path.partition("?")[2])
    assert "must be a whole number from" in refused.json()["error"]["message"]
