"""Two intakes behind the proxies that people use, as compose/proxies configures them, at the settings that ship."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.conftest import ROOT, Stack, free_port, wait_until
from tests.offers import post_by_curl, post_by_java

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "a b c d", "max_tokens": 4}
STREAM = BODY | {"stream": True}
PREFIX = "/llm"

# Around what is copied: what Debian's nginx.conf has, in a folder of ours; and no certificates for a port of loopback.
NGINX = """
daemon off;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {config}
}}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
{config}
"""
# The file, where it listens, where it shall, what is around it, and how it is started.
PROXIES = {
    "nginx": ("nginx.conf", "listen 8080;", "listen {address};", NGINX, "nginx -e {folder}/log -c {file}"),
    "haproxy": ("haproxy.cfg", "bind :8080", "bind {address}", "{config}", "haproxy -db -f {file}"),
    "caddy": ("Caddyfile", ":8080 {", "http://{address} {{", CADDY, "caddy run --adapter caddyfile --config {file}"),
}


@contextlib.contextmanager
def proxy(name: str, folder: Path, first: Stack, second: Stack, changes: dict[str, str]) -> Iterator[str]:
    """Run a proxy as it is shipped, but for addresses and what a test says; yields its URL."""
    source, listens, shall, around, command = PROXIES[name]
    address, file = f"127.0.0.1:{free_port()}", folder / "config"
    config = (ROOT / "compose" / "proxies" / source).read_text(encoding="ascii")
    intakes = {"127.0.0.1:8001": f"127.0.0.1:{first.port}", "127.0.0.1:8002": f"127.0.0.1:{second.port}"}
    for shipped, ours in {listens: shall.format(address=address), **intakes, **changes}.items():
        assert shipped in config
        config = config.replace(shipped, ours)
    file.write_text(around.format(folder=folder, config=config), encoding="ascii")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command.format(folder=folder, file=file).split(),
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )

    def serves() -> bool:
        assert process.poll() is None, (folder / "output").read_text()
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"http://{address}/health").status_code == 200
        return False

    try:
        wait_until(serves, f"{name} serves")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def installed(
    folder: Path, first: Stack, second: Stack, changes: dict[str, dict[str, str]]
) -> Iterator[dict[str, str]]:
    """Run every proxy that is installed; yields their URLs by name."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for name in PROXIES:
            if shutil.which(name):
                (own := folder / name).mkdir()
                urls[name] = stack.enter_context(proxy(name, own, first, second, changes.get(name, {})))
        if not urls:
            pytest.skip("no proxy is installed (make servers)")
        yield urls


class Turns(ThreadingHTTPServer):
    """An engine that makes no token before it is that token's turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Turn)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.turn = threading.Semaphore(0)


class Turn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Turns

    def do_GET(self) -> None:
        self._head("Content-Length", "0")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not asked.get("stream"):
            answer = json.dumps({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]}).encode()
            self._head("Content-Length", str(len(answer)))
            self.wfile.write(answer)
            return
        self._head("Transfer-Encoding", "chunked")
        for number in range(asked["max_tokens"]):
            if not self.server.turn.acquire(timeout=20):
                return
            finish = "length" if number + 1 == asked["max_tokens"] else None
            self._chunk({"id": "1", "choices": [{"index": 0, "text": f"w{number} ", "finish_reason": finish}]})
        self._write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, name: str, value: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if name == "Content-Length" else "text/event-stream")
        self.send_header(name, value)
        self.end_headers()

    def _chunk(self, chunk: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def turns() -> Iterator[Turns]:
    with Turns() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def stacks(redis_url: str, turns: Turns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stack]]:
    """Return two intakes as they ship, and one that beats often, below a prefix; int4 echoes, fp8 takes turns."""
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
    odd = {
        "BITLADDER_INTAKE__ROOT_PATH": PREFIX,
        "BITLADDER_INTAKE__HEARTBEAT_S": "0.5",
        "BITLADDER_INTAKE__AWAIT_TIMEOUT_S": "20",
    }
    stacks = [Stack(redis_url), Stack(redis_url), Stack(redis_url, **odd)]
    for stack in stacks[:2]:
        del stack.environment["BITLADDER_INTAKE__LAME_DUCK_S"]  # what the tests set is not what ships
    store_of_files = str(tmp_path_factory.mktemp("files"))
    for stack in stacks:
        stack.environment["BITLADDER_FILES__STORE"] = store_of_files
        stack.intake()
    stacks[2].worker("int4")
    stacks[2].environment |= {
        "BITLADDER_WORKER__ENGINE": "remote",
        "BITLADDER_MODELS__SMOLLM2__TIERS__FP8__URL": turns.url,
    }
    stacks[2].worker("fp8")
    yield stacks
    for stack in stacks:
        stack.processes[0].send_signal(signal.SIGINT)  # no lame duck
        stack.stop()


@pytest.fixture(scope="module")
def urls(stacks: list[Stack], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with installed(tmp_path_factory.mktemp("proxies"), stacks[0], stacks[1], {}) as urls:
        yield urls


@pytest.fixture(params=PROXIES)
def url(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    """Return the URL of each proxy in its turn."""
    if request.param not in urls:
        pytest.skip(f"{request.param} is not installed (make servers)")
    return urls[request.param]


@pytest.fixture
def suspended(stacks: list[Stack], redis_url: str) -> Iterator[redis.Redis]:
    """Let no job begin."""
    with redis.Redis.from_url(redis_url) as store:
        store.set("rq:suspended", 1)
        wait_until(lambda: stacks[2].http.get("/v1/queues").json()["suspended"], "claims are suspended")
        time.sleep(1.1)  # a claim that waits for a push learns of it within worker.block_s
        yield store
        store.delete("rq:suspended")


def job_ids(store: redis.Redis) -> set[str]:
    return {bytes(key).decode().removeprefix("rq:job:") for key in store.scan_iter("rq:job:*")}


def test_curl_may_offer_http2(stacks: list[Stack], urls: dict[str, str]) -> None:
    endpoints = [f"{url}/v1/jobs" for url in (stacks[0].url, *urls.values())]

    assert [answer["status"] for answer in post_by_curl(json.dumps(BODY), *endpoints)] == ["queued"] * len(endpoints)


def test_java_may_offer_http2(stacks: list[Stack], urls: dict[str, str], tmp_path: Path) -> None:
    endpoints = [f"{url}/v1/jobs" for url in (stacks[0].url, *urls.values())]

    answers = post_by_java(tmp_path, json.dumps(BODY), *endpoints)

    assert [answer["status"] for answer in answers] == ["queued"] * len(endpoints)


def test_a_file_may_be_larger_than_other_bodies(stacks: list[Stack], url: str) -> None:
    upload = {"file": ("in.jsonl", b"x" * 3 * 2**20)}

    answer = httpx2.post(f"{url}/v1/files", data={"purpose": "batch"}, files=upload, timeout=20)

    assert (answer.status_code, answer.json()["bytes"]) == (200, 3 * 2**20)
    assert len(stacks[1].http.get(f"/v1/files/{answer.json()['id']}/content").content) == 3 * 2**20


def stream_in_turns(url: str, turns: Turns, tokens: int = 40) -> float:
    """Read a stream whose every token is made when the one before it has arrived; return how long that took."""
    body, texts = STREAM | {"max_tokens": tokens}, []
    start = time.monotonic()
    turns.turn.release()
    with httpx2.stream("POST", f"{url}/v1/completions", json=body, headers={"X-Min-Tier": "fp8"}, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                texts.append(json.loads(line.removeprefix("data: "))["choices"][0]["text"])
                if len(texts) < tokens:
                    turns.turn.release()
    assert texts == [f"w{number} " for number in range(tokens)]
    return time.monotonic() - start


def test_each_token_arrives_before_the_next_is_made(url: str, turns: Turns) -> None:
    assert stream_in_turns(url, turns) < 4  # HAProxy without http-no-delay: 8 s


def test_nginx_collects_no_stream_where_it_collects_other_answers(
    stacks: list[Stack], urls: dict[str, str], turns: Turns, tmp_path: Path
) -> None:
    if "nginx" not in urls:
        pytest.skip("nginx is not installed (make servers)")
    with proxy("nginx", tmp_path, stacks[0], stacks[1], {"proxy_buffering off;": ""}) as url:
        assert stream_in_turns(url, turns) < 4


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["awaited", "streamed"])
def test_a_client_that_leaves_takes_its_job_with_it(
    stacks: list[Stack], url: str, suspended: redis.Redis, body: dict[str, Any]
) -> None:
    before = job_ids(suspended)
    content, host = json.dumps(body).encode(), url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        wait_until(lambda: job_ids(suspended) > before, "its job waits")
    (job_id,) = job_ids(suspended) - before

    wait_until(lambda: stacks[1].http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled", "its job is cancelled")


def test_a_stream_waits_longer_than_a_proxy_s_read_timeout(
    stacks: list[Stack], suspended: redis.Redis, tmp_path: Path
) -> None:
    changes = {name: {"700s": "2s"} for name in ("nginx", "haproxy")}  # Caddy has none

    def read(url: str) -> str:
        return httpx2.post(f"{url}/v1/completions", json=STREAM, timeout=3).text

    with installed(tmp_path, stacks[2], stacks[2], changes) as urls, ThreadPoolExecutor(3) as pool:
        before = job_ids(suspended)
        reading = [pool.submit(read, url) for url in urls.values()]
        wait_until(lambda: len(job_ids(suspended) - before) == len(urls), "all wait")
        time.sleep(5)
        suspended.delete("rq:suspended")
        found = [one.result(20) for one in reading]

    assert all(text.startswith(": heartbeat\n\n") and text.endswith("data: [DONE]\n\n") for text in found)


def test_links_lead_back_through_a_proxy_that_serves_the_intake_below_a_path(
    stacks: list[Stack], tmp_path: Path
) -> None:
    with installed(tmp_path, stacks[2], stacks[2], {}) as urls:
        for url in urls.values():
            accepted = httpx2.post(f"{url}{PREFIX}/v1/jobs", json=BODY)
            link = accepted.headers["location"]

            assert link.startswith(f"{PREFIX}/v1/jobs/")
            assert httpx2.get(url + link).json()["id"] == accepted.json()["id"]


def test_intakes_that_are_not_ready_say_themselves_what_they_lack(tmp_path: Path) -> None:
    stack = Stack("redis://127.0.0.1:1/0")
    stack.start("serve")
    wait_until(lambda: answers(stack, "/health") == 200, "the intake lives")
    try:
        with installed(tmp_path, stack, stack, {}) as urls:
            time.sleep(3)  # two health checks
            found = {name: httpx2.post(f"{url}/v1/jobs", json=BODY) for name, url in urls.items()}
    finally:
        stack.stop()

    assert {name: answer.status_code for name, answer in found.items()} == dict.fromkeys(found, 503)
    assert {answer.json()["error"]["code"] for answer in found.values()} == {"queue_unreachable"}
    assert all("retry-after" in answer.headers for answer in found.values())


def answers(stack: Stack, path: str) -> int:
    with contextlib.suppress(httpx2.HTTPError):
        return stack.http.get(path).status_code
    return 0


class Load:
    """Clients that send one request after the other until they are told to stop; every other answer is streamed."""

    def __init__(self, url: str) -> None:
        self.url, self.is_over, self.told = url, False, Counter[str]()

    def run(self) -> None:
        with httpx2.Client(base_url=self.url, timeout=60) as client:
            while not self.is_over:
                for body in (BODY, STREAM):
                    try:
                        answer = client.post("/v1/completions", json=body)
                    except httpx2.HTTPError as error:
                        self.told[repr(error)] += 1
                        continue
                    is_whole = body is BODY or answer.text.endswith("data: [DONE]\n\n")
                    self.told[
                        "whole" if answer.status_code == 200 and is_whole else f"{answer.status_code} {answer.text}"
                    ] += 1


def restarted(stack: Stack) -> int:
    """Stop an intake and start it again, as a supervisor does that waits until it is ready; return its exit status."""
    process = stack.processes.pop(0)
    process.send_signal(signal.SIGTERM)
    status = process.wait(40)
    stack.intake()
    stack.processes.insert(0, stack.processes.pop())
    return status


def test_two_intakes_are_restarted_one_after_the_other_without_a_failed_request(
    stacks: list[Stack], urls: dict[str, str]
) -> None:
    loads = {name: Load(url) for name, url in urls.items()}

    def all_are_served(count: int) -> None:
        before = {name: load.told["whole"] for name, load in loads.items()}
        wait_until(lambda: all(loads[name].told["whole"] > before[name] + count for name in loads), "all are served")

    with ThreadPoolExecutor(2 * len(loads)) as pool:
        clients = [pool.submit(load.run) for load in loads.values() for _ in range(2)]
        try:
            all_are_served(10)
            statuses = [restarted(stack) for stack in stacks[:2]]
            all_are_served(10)
        finally:
            for load in loads.values():
                load.is_over = True
        for client in clients:
            client.result(60)

    assert statuses == [0, 0]
    assert {name: set(load.told) for name, load in loads.items()} == {name: {"whole"} for name in loads}


def intakes_ends(port: int) -> dict[str, str]:
    """Return the state of each TCP connection to a port of this machine, as the listener's end has it, by its peer."""
    rows = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return {peer: state for local, peer, state in rows if local.endswith(f":{port:04X}")}


ESTABLISHED, CLOSED_FIRST = "01", ("04", "05", "06")  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT


@pytest.mark.long
def test_an_idle_connection_is_closed_by_the_proxy_and_not_by_the_intake(stacks: list[Stack], tmp_path: Path) -> None:
    """Else a request that is sent at that moment is lost: nobody may repeat a POST."""
    stack_of = {name: stack for name, stack in zip(PROXIES, stacks, strict=True) if shutil.which(name)}
    kept: dict[str, set[str]] = {}
    closed_by: dict[str, set[str]] = {name: set() for name in stack_of}
    with contextlib.ExitStack() as running:
        for name, stack in stack_of.items():
            (folder := tmp_path / name).mkdir()
            url = running.enter_context(proxy(name, folder, stack, stack, {}))
            kept[name] = idle_connections(running, url, stack.port)
        end = time.monotonic() + 140  # longer than the intake keeps one
        while any(kept.values()) and time.monotonic() < end:
            for name, stack in stack_of.items():
                now = intakes_ends(stack.port)
                closed = {peer for peer in kept[name] if now.get(peer) != ESTABLISHED}
                closed_by[name] |= {"intake" if now.get(peer) in CLOSED_FIRST else "proxy" for peer in closed}
                kept[name] -= closed
            time.sleep(0.5)

    assert closed_by == {name: {"proxy"} for name in stack_of}


def idle_connections(running: contextlib.ExitStack, url: str, port: int) -> set[str]:
    """Return the connections that a proxy keeps to an intake when clients have posted and stay."""
    before = set(intakes_ends(port))
    clients = [running.enter_context(httpx2.Client(base_url=url)) for _ in range(8)]
    with ThreadPoolExecutor(len(clients)) as pool:
        assert {answer.status_code for answer in pool.map(lambda one: one.post("/v1/jobs", json=BODY), clients)} == {
            202
        }
    time.sleep(0.5)  # a health check that came between is over
    return {peer for peer, state in intakes_ends(port).items() if state == ESTABLISHED} - before


@pytest.mark.long
def test_a_stream_waits_longer_than_a_minute_behind_proxies_that_have_no_longer_timeout(
    stacks: list[Stack], suspended: redis.Redis, tmp_path: Path
) -> None:
    changes = {name: {"700s": "60s"} for name in ("nginx", "haproxy")}  # nginx' default, and what most examples say
    with installed(tmp_path, stacks[0], stacks[1], changes) as urls, ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(httpx2.post, f"{url}/v1/completions", json=STREAM, timeout=20) for url in urls.values()]
        time.sleep(75)
        suspended.delete("rq:suspended")
        found = [one.result(20).text for one in reading]

    assert [text.count(": heartbeat\n\n") for text in found] == [5] * len(found)  # one in 15 s
    assert all(text.endswith("data: [DONE]\n\n") for text in found)
