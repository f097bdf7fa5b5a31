"""A server before an S3 server that answers for so many objects and then breaks, in one way or another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

# How the answer for an object ends that is one too many: a status and what S3 says with it, or no more bytes.
REFUSALS = {
    "expired": (400, b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"),
    "busy": (503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"),
    "broken": (500, b"<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>"),
}
BREAKS = (*REFUSALS, "gone", "cut off")


class Breaking(ThreadingHTTPServer):
    """Passes requests on."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.passed_on = httpx2.Client(base_url=url)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.left = 10**9  # objects
        self.how = ""
        self.fetched: list[str] = []
        self.lock = threading.Lock()


@contextmanager
def before(url: str) -> Iterator[Breaking]:
    server = Breaking(url)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    server.passed_on.close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Breaking

    def do_GET(self) -> None:  # the name is http.server's
        is_object = "list-type" not in self.path
        answer = self.server.passed_on.get(self.path, headers=dict(self.headers))
        status, body = answer.status_code, answer.content
        with self.server.lock:
            self.server.left -= is_object
            broken = self.server.how if is_object and self.server.left < 0 else ""
            if is_object and not broken:
                self.server.fetched.append(self.path)
        if broken in REFUSALS:
            status, body = REFUSALS[broken]
        if broken != "gone":
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if broken == "cut off" else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...
