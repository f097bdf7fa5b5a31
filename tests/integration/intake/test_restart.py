"""An intake that is stopped: whoever shares requests out hears it first, and nobody who waits hears nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import redis

from tests.conftest import Process, Stack, wait_until

SHORT = {"BITLADDER_INTAKE__LAME_DUCK_S": "0.6", "BITLADDER_INTAKE__DRAIN_GRACE_S": "1"}


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


class Pair:
    """Two intakes before one worker: the first is stopped, the second one stays."""

    def __init__(self, make_stack: Callable[..., Stack], log: Path, tokens: int, **environment: str) -> None:
        others = {name: value for name, value in environment.items() if "INTAKE" not in name}
        self.first, self.second = make_stack(**environment), make_stack(**others)
        if "BITLADDER_INTAKE__LAME_DUCK_S" not in environment:  # what the tests set is not what ships
            del self.first.environment["BITLADDER_INTAKE__LAME_DUCK_S"]
        self.log = log
        with log.open("wb") as self.first.output:
            self.first.intake()
        self.second.intake()
        self.second.worker("int4")
        self.body: dict[str, Any] = {"model": "smollm2", "prompt": words(tokens), "max_tokens": tokens}
        self.stream = self.body | {"stream": True}
        self.process: Process = self.first.processes[0]

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
        return httpx2.post(f"{self.first.url}{path}", json=body, headers=headers, timeout=90)

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(f"{self.first.url}{path}", headers=headers, timeout=90)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def listens(self) -> bool:
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.first.port), 1):
            return True
        return False

    def ended_well(self) -> bool:
        return self.process.wait(20) == 0 and b"Traceback" not in self.log.read_bytes()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def events(answer: httpx2.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200
    return [dict(line.split(": ", 1) for line in event.splitlines()) for event in answer.text.split("\n\n") if event]


def texts(events: list[dict[str, str]]) -> str:
    return "".join(json.loads(event["data"])["choices"][0]["text"] for event in events if event["data"] != "[DONE]")


def read_on(pair: Pair, streamed: httpx2.Response) -> str:
    """Return the text of a stream that was interrupted, its rest read at the other intake as its last event says."""
    *before, last = events(streamed)
    told = json.loads(last["data"])
    assert (last["event"], told["error"]["code"]) == ("restart", "intake_closing")
    after = httpx2.get(pair.second.url + told["url"], headers={"Last-Event-ID": told["last_event_id"]}, timeout=90)
    *rest, done = events(after)
    assert done["data"] == "[DONE]"
    return texts(before) + texts(rest)


def moved(pair: Pair, answer: httpx2.Response) -> dict[str, Any]:
    """Return the job of an awaited request that was interrupted, once it is over."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "intake_closing")
    assert answer.headers["location"] == f"/v1/jobs/{answer.headers['x-job-id']}"
    assert answer.headers["retry-after"] == "1"
    job: dict[str, Any] = pair.second.http.get(answer.headers["location"], params={"wait": 60}).json()
    assert (job["status"], job["attempts"]) == ("finished", 1)
    return job


def running(store: redis.Redis, count: int) -> None:
    wait_until(lambda: len(store.keys("rq:job:*")) >= count, f"{count} jobs are there")


def test_who_waits_at_an_intake_that_ends_is_told_where_it_goes_on(
    make_stack: Callable[..., Stack], tmp_path: Path, pool: ThreadPoolExecutor, store: redis.Redis
) -> None:
    pair = Pair(make_stack, tmp_path / "log", 40, BITLADDER_ECHO__TOKENS_PER_S="10", **SHORT)
    early = pair.second.http.post("/v1/jobs", json=pair.stream).json()["id"]
    posts: dict[str, Future[httpx2.Response]] = {
        "awaited": pool.submit(pair.post, "/v1/completions", pair.body),
        "keyed": pool.submit(pair.post, "/v1/completions", pair.body, **{"Idempotency-Key": "one"}),
        "streamed": pool.submit(pair.post, "/v1/completions", pair.stream),
        "events": pool.submit(pair.get, f"/v1/jobs/{early}/stream"),
        "polled": pool.submit(pair.get, f"/v1/jobs/{early}?wait=60"),
        "body": pool.submit(half_a_body, pair),
    }
    running(store, 4)

    pair.stop()
    wait_until(lambda: not pair.listens(), "it listens no longer")
    found = {name: post.result(30) for name, post in posts.items()}

    assert pair.ended_well()
    moved(pair, found["awaited"])
    assert found["awaited"].headers["x-should-retry"] == "false"
    keyed = moved(pair, found["keyed"])
    assert found["keyed"].headers["x-should-retry"] == "true"
    again = pair.second.http.post(
        "/v1/completions", json=pair.body, headers={"Idempotency-Key": "one", "X-Stainless-Retry-Count": "1"}
    )
    assert again.headers["x-job-id"] == keyed["id"]
    assert read_on(pair, found["streamed"]).strip() == words(40)
    assert read_on(pair, found["events"]).strip() == words(40)
    assert (found["polled"].status_code, found["polled"].json()["status"]) == (200, "running")
    assert (found["body"].status_code, found["body"].json()["error"]["code"]) == (503, "intake_closing")
    assert found["body"].headers["x-should-retry"] == "true"
    assert len(store.keys("rq:job:*")) == 4


def half_a_body(pair: Pair) -> httpx2.Response:
    def body() -> Iterator[bytes]:
        yield json.dumps(pair.body).encode()[:20]
        time.sleep(4)

    return httpx2.post(f"{pair.first.url}/v1/jobs", content=body(), timeout=30)


def test_openai_s_client_neither_repeats_nor_takes_half_a_stream_for_a_whole(
    make_stack: Callable[..., Stack], tmp_path: Path, pool: ThreadPoolExecutor, store: redis.Redis
) -> None:
    pair = Pair(make_stack, tmp_path / "log", 40, BITLADDER_ECHO__TOKENS_PER_S="10", **SHORT)
    client = openai.OpenAI(base_url=f"{pair.first.url}/v1", api_key="none")

    def awaited() -> object:
        return client.completions.create(**pair.body)

    def streamed() -> object:
        return "".join(chunk.choices[0].text for chunk in client.completions.create(**pair.body, stream=True))

    posts = [pool.submit(awaited), pool.submit(streamed)]
    running(store, 2)
    pair.stop()

    with pytest.raises(openai.InternalServerError) as refused:
        posts[0].result(30)
    with pytest.raises(openai.APIError, match="this intake is being stopped"):
        posts[1].result(30)
    client.close()

    assert refused.value.status_code == 503
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert pair.ended_well()
    assert len(store.keys("rq:job:*")) == 2


def test_an_intake_that_is_to_end_is_unready_first_and_serves_on(
    make_stack: Callable[..., Stack], tmp_path: Path, store: redis.Redis
) -> None:
    pair = Pair(make_stack, tmp_path / "log", 3, BITLADDER_INTAKE__LAME_DUCK_S="2")
    kept = httpx2.Client(base_url=pair.first.url)
    assert kept.get("/health").headers.get("connection") is None

    pair.stop()
    wait_until(lambda: not pair.is_ready(), "it is unready")
    served = [kept.post("/v1/completions", json=pair.body), pair.post("/v1/jobs", pair.body), kept.get("/health")]

    assert [answer.status_code for answer in served] == [200, 202, 200]
    assert {answer.headers["connection"] for answer in served} == {"close"}
    assert pair.get("/readyz").json()["error"]["code"] == "intake_closing"
    assert pair.ended_well()
    kept.close()


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)])
def test_a_second_signal_spares_the_rest_of_the_time(
    make_stack: Callable[..., Stack],
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    store: redis.Redis,
    numbers: tuple[int, int],
) -> None:
    environment = {"BITLADDER_INTAKE__LAME_DUCK_S": "60", "BITLADDER_INTAKE__DRAIN_GRACE_S": "60"}
    pair = Pair(make_stack, tmp_path / "log", 40, BITLADDER_ECHO__TOKENS_PER_S="10", **environment)
    awaited = pool.submit(pair.post, "/v1/completions", pair.body)
    running(store, 1)

    pair.stop(numbers[0])
    wait_until(lambda: not pair.is_ready(), "it is unready")
    pair.stop(numbers[1])

    assert pair.ended_well()
    moved(pair, awaited.result(30))


def test_a_client_that_does_not_read_keeps_no_intake(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    pair = Pair(make_stack, tmp_path / "log", 3, **SHORT)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", pair.first.port))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 500)

        pair.stop()

        assert pair.ended_well()


def test_who_could_connect_is_answered(
    make_stack: Callable[..., Stack], tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    pair = Pair(make_stack, tmp_path / "log", 3, **SHORT)
    answers = Counter[str]()

    def ask() -> None:
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", pair.first.port), 10)
            except ConnectionRefusedError:
                return
            with client:
                try:
                    answers[str(answered(client))] += 1
                except OSError as error:
                    answers[repr(error)] += 1

    clients = [pool.submit(ask) for _ in range(16)]
    wait_until(lambda: answers["True"] > 50, "requests are answered")
    pair.stop()
    for client in clients:
        client.result(30)

    assert pair.ended_well()
    assert set(answers) == {"True"}


@pytest.mark.parametrize(
    "times", [pytest.param(1, marks=pytest.mark.long, id="as they are"), pytest.param(3, id="3 times as fast")]
)
def test_an_intake_ends_at_the_settings_that_ship(
    make_stack: Callable[..., Stack], tmp_path: Path, pool: ThreadPoolExecutor, store: redis.Redis, times: int
) -> None:
    faster = {"BITLADDER_INTAKE__LAME_DUCK_S": str(5 / times), "BITLADDER_INTAKE__DRAIN_GRACE_S": str(30 / times)}
    environment = faster if times > 1 else {}
    pair = Pair(make_stack, tmp_path / "log", 42, BITLADDER_ECHO__TOKENS_PER_S=str(times), **environment)
    idle = socket.create_connection(("127.0.0.1", pair.second.port), timeout=10)
    assert answered(idle)
    fits = pool.submit(pair.post, "/v1/completions", pair.body | {"max_tokens": 25})
    awaited = pool.submit(pair.post, "/v1/completions", pair.body)
    streamed = pool.submit(pair.post, "/v1/completions", pair.stream)
    running(store, 3)

    start = time.monotonic()
    pair.stop()
    wait_until(lambda: not pair.is_ready(), "it is unready")
    late = pool.submit(pair.post, "/v1/jobs", pair.body)
    wait_until(lambda: not pair.listens(), "it listens no longer")
    lame_s = time.monotonic() - start

    assert (late.result(10).status_code, fits.result(60).status_code) == (202, 200)
    assert 4.5 / times < lame_s < 5 / times + 2
    assert pair.process.wait(40) == 0
    assert 30 / times < time.monotonic() - start < 30 / times + 10
    assert pair.ended_well()
    moved(pair, awaited.result(1))
    assert read_on(pair, streamed.result(1)).strip() == words(42)
    assert answered(idle)  # idle for so long, and not closed
    idle.close()


def answered(connection: socket.socket) -> bool:
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    said = b""
    while not said.endswith(b"}") and (chunk := connection.recv(4096)):
        said += chunk
    return said.startswith(b"HTTP/1.1 200 OK")
