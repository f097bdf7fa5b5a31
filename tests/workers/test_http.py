"""workers/engines/http.py: the connections to an engine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from workers.engines import http
from workers.engines.http import HttpEngine

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"choices":[{}]}'
CLOSED_AFTER_S = 0.05


@contextlib.contextmanager
def impatient_server() -> Iterator[str]:
    """Run a server that closes a connection soon after its answer, as vLLM does after five seconds; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(ANSWER)
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
