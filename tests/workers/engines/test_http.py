"""workers/engines/http.py: the connections to an engine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from workers.engines import http
from workers.engines.base import TRACE_HEADERS
from workers.engines.errors import EngineFaultError
from workers.engines.http import HttpEngine
from workers.engines.vllm_metrics import MAX_BYTES


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWER = answer(b'{"choices":[{}]}')
TOKENS = b'{"count":2,"max_model_len":2048,"tokens":[1604,16905],"token_strs":null}'
CLOSED_AFTER_S = 0.05


@contextlib.contextmanager
def impatient_server(said: bytes = ANSWER, *, asked: list[bytes] | None = None) -> Iterator[str]:
    """Run a server that closes a connection soon after its answer, as vLLM does after five seconds; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    data = connection.recv(65536)
                    if asked is not None:
                        asked.append(data)
                    connection.sendall(said)
                    time.sleep(CLOSED_AFTER_S)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


async def test_a_connection_that_the_server_has_closed_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEPT_ALIVE_S", CLOSED_AFTER_S / 5)
    with impatient_server() as url:
        engine = HttpEngine(url, "m")
        try:
            first = await engine.generate("/v1/completions", b"{}", None)
            time.sleep(CLOSED_AFTER_S * 2)  # noqa: ASYNC251  (a busy loop, that cannot see the connection close)
            second = await engine.generate("/v1/completions", b"{}", None)
        finally:
            await engine.stop()

    assert (first.status, second.status) == (200, 200)


async def test_the_engine_is_asked_within_the_trace_of_the_job() -> None:
    asked: list[bytes] = []
    with impatient_server(asked=asked) as url:
        engine = HttpEngine(url, "m")
        TRACE_HEADERS.set({"traceparent": "00-aa-bb-01"})
        try:
            await engine.generate("/v1/completions", b"{}", None)
        finally:
            await engine.stop()

    assert b"\r\ntraceparent: 00-aa-bb-01\r\n" in asked[0]


@pytest.mark.parametrize(("route", "status"), [("/tokenize", 200), ("/v1/completions", 0)])
async def test_only_an_answer_of_a_route_that_generates_needs_choices(route: str, status: int) -> None:
    with impatient_server(answer(TOKENS)) as url:
        engine = HttpEngine(url, "m")
        try:
            if status:
                got = await engine.generate(route, b'{"prompt":"def f"}', None)
                assert (got.status, got.body) == (status, TOKENS)
            else:
                with pytest.raises(EngineFaultError, match="has no choices"):
                    await engine.generate(route, b"{}", None)
        finally:
            await engine.stop()


async def test_metrics_above_the_limit_are_not_read_to_their_end() -> None:
    figure = b'vllm:num_requests_running{engine="0"} 3\n'
    loads = []
    for size in (len(figure), MAX_BYTES + 1):
        with impatient_server(answer(figure.ljust(size, b"#"))) as url:
            engine = HttpEngine(url, "m")
            loads.append(await engine.load())
            await engine.stop()

    assert [load.running for load in loads] == [3, 0]
    assert loads[1].exposition == ""
