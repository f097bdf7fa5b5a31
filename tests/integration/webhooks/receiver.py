"""A server that webhooks are sent to."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import openai

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # noqa: S105  (signs for tests alone)


class Received(NamedTuple):
    """One delivery."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    def unwrap(self, secret: str = SECRET) -> Any:  # noqa: ANN401  (a type for each event)
        """Verify and read it with OpenAI's library."""
        return openai.OpenAI(api_key="-").webhooks.unwrap(self.body, self.headers, secret=secret)


class Receiver:
    """Answers each delivery with `status`, after it has waited for `may_answer`."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status: Callable[[Received], int] = lambda _: 204
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.location = ""
        self.names: list[str] = []  # that TLS was asked for
        self.url = ""

    def about(self, path: str) -> list[Received]:
        return [delivery for delivery in list(self.received) if delivery.path == path]


@contextmanager
def receiving(certificate: Path | None = None) -> Iterator[Receiver]:
    """Run a receiver on loopback; with a certificate and its key in one file it speaks TLS."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            delivery = Received(self.path, headers, body, time.monotonic())
            receiver.received.append(delivery)
            receiver.may_answer.wait(30)
            self.send_response(receiver.status(delivery))
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _, name, __: receiver.names.append(name)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        server.shutdown()
        server.server_close()
