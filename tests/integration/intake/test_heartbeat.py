"""A stream on which nothing happens: what is on the way hears that it goes on, and whoever reads its events nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
import redis

from bitladder.client import Client
from tests.conftest import Stack, wait_until

HEARTBEAT = ": heartbeat"
BODY: dict[str, Any] = {"model": "smollm2", "prompt": "a b c d", "max_tokens": 4}
STREAM = BODY | {"stream": True}
ONE: dict[str, Any] = {"max_tokens": 1}
UNSERVED = {"X-Min-Tier": "fp8"}  # the only worker here is below it


@pytest.fixture(scope="module")
def beating(redis_url: str) -> Iterator[Stack]:
    stack = Stack(
        redis_url,
        BITLADDER_INTAKE__HEARTBEAT_S="0.1",
        BITLADDER_INTAKE__AWAIT_TIMEOUT_S="20",
        BITLADDER_INTAKE__ADMISSION="false",
        BITLADDER_ECHO__TOKENS_PER_S="4",
    )
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


@pytest.fixture
def stack(beating: Stack, redis_url: str) -> Iterator[Stack]:
    yield beating
    with redis.Redis.from_url(redis_url) as store:
        store.delete("rq:suspended")


@pytest.fixture
def suspended(stack: Stack, redis_url: str) -> Iterator[redis.Redis]:
    """Let no job begin."""
    with redis.Redis.from_url(redis_url) as store:
        store.set("rq:suspended", 1)
        wait_until(lambda: stack.http.get("/v1/queues").json()["suspended"], "claims are suspended")
        time.sleep(1.1)  # a claim that waits for a push learns of it within worker.block_s
        yield store


class Stream:
    """One client's stream, read line by line."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self._http = httpx2.Client(timeout=30)
        self._answer = self._http.stream("POST", f"{url}/v1/completions", json=STREAM, headers=headers)
        self.response = self._answer.__enter__()
        self._lines = (line for line in self.response.iter_lines() if line)

    def next(self) -> str:
        return next(self._lines)

    def rest(self) -> list[str]:
        lines = list(self._lines)
        self.close()
        return lines

    def close(self) -> None:
        self._answer.__exit__(None, None, None)
        self._http.close()


def texts(lines: list[str]) -> list[str]:
    """Return the texts and error codes of a stream's events."""
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [event if event == "[DONE]" else _text(json.loads(event)) for event in events]


def _text(event: dict[str, Any]) -> str:
    return str(event["error"]["code"] if "error" in event else event["choices"][0]["text"])


def test_a_stream_that_waits_in_the_queue_begins_and_beats_until_its_job_does(
    stack: Stack, suspended: redis.Redis
) -> None:
    stream = Stream(stack.url)
    before = [stream.next() for _ in range(3)]
    suspended.delete("rq:suspended")
    rest = stream.rest()

    assert stream.response.status_code == 200
    assert before == [HEARTBEAT] * 3
    assert texts(rest) == ["a", " b", " c", " d", "[DONE]"]
    assert rest.count(HEARTBEAT) >= 3  # four tokens a second: between them, too


def test_heartbeats_are_no_events_to_those_who_read_events(stack: Stack, suspended: redis.Redis) -> None:
    def by_openai() -> str:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
            return "".join(chunk.choices[0].text for chunk in client.completions.create(**BODY, stream=True))

    def by_ours() -> str:
        with Client(stack.url) as client:
            return "".join(client.stream(BODY))

    job_id = stack.http.post("/v1/jobs", json=STREAM).json()["id"]
    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(by_openai), pool.submit(by_ours)]
        followed = pool.submit(httpx2.get, f"{stack.url}/v1/jobs/{job_id}/events", timeout=30)
        wait_until(lambda: suspended.llen("rq:queue:smollm2:int4:normal") == 3, "all wait")
        time.sleep(0.5)
        suspended.delete("rq:suspended")
        found = [one.result(30) for one in reading]
        events = followed.result(30).text

    assert found == ["a b c d"] * 2
    assert events.startswith(f"{HEARTBEAT}\n\n")
    assert texts(events.splitlines()) == ["a", " b", " c", " d", "[DONE]"]


def event_source(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    """Read lines as a browser's EventSource does; return each event's name, data and last id."""
    found: list[tuple[str, str, str]] = []
    name, data, last = "", list[str](), ""
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last = value
        elif not line and data:
            found.append((name or "message", "\n".join(data), last))
            name, data = "", []
    return found


def test_named_events_are_read_between_heartbeats_which_come_no_earlier(stack: Stack, suspended: redis.Redis) -> None:
    said = {"model": "smollm2", "messages": [{"role": "user", "content": "a b c d"}], "max_tokens": 4, "stream": True}
    asked = {"model": "smollm2", "input": "a b c d", "max_output_tokens": 4, "stream": True}
    path = stack.http.post("/v1/jobs?endpoint=/v1/responses", json=asked).json()["urls"]["stream"]

    def by_openai() -> str:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
            events = client.responses.create(model="smollm2", input="a b c d", max_output_tokens=4, stream=True)
            return "".join(event.delta for event in events if event.type == "response.output_text.delta")

    def lines_of(method: str, path: str, body: dict[str, Any] | None) -> tuple[float, list[str]]:
        """Return when the first line came, counted from the answer's head, and all lines."""
        with httpx2.stream(method, stack.url + path, json=body, timeout=30) as answer:
            began_s = time.monotonic()
            lines = answer.iter_lines()
            first = next(lines)
            return time.monotonic() - began_s, [first, *lines]

    with ThreadPoolExecutor(3) as pool:
        responses = pool.submit(by_openai)
        messages = pool.submit(lines_of, "POST", "/v1/messages", said)
        followed = pool.submit(lines_of, "GET", path, None)
        wait_until(lambda: suspended.llen("rq:queue:smollm2:int4:normal") == 3, "all wait")
        time.sleep(0.5)
        suspended.delete("rq:suspended")
        text, (_, of_messages), (after_s, of_job) = responses.result(30), messages.result(30), followed.result(30)

    by_name = [name for name, _, _ in event_source(of_messages)]
    ids = [last for _, _, last in event_source(of_job)]
    deltas = [json.loads(data)["delta"] for name, data, _ in event_source(of_job) if name.endswith("text.delta")]
    assert text == "".join(deltas) == "a b c d"
    assert (by_name[0], by_name[-1]) == ("message_start", "message_stop")
    assert len(set(ids)) == len(ids) > 4
    assert of_messages.count(HEARTBEAT) > 3
    assert of_job[0] == HEARTBEAT
    assert after_s > 0.09


def test_what_is_known_before_the_first_heartbeat_has_its_own_status(stack: Stack) -> None:
    refused = stack.http.post("/v1/completions", json=STREAM | {"max_tokens": -1})
    late = stack.http.post("/v1/completions", json=STREAM, headers={"X-Deadline-Ms": "1"})

    assert (refused.status_code, late.status_code) == (400, 504)


def test_what_goes_wrong_after_the_first_heartbeat_is_an_event(stack: Stack, suspended: redis.Redis) -> None:
    late = Stream(stack.url, {"X-Deadline-Ms": "1500"})
    cancelled = Stream(stack.url)
    gone = Stream(stack.url)
    assert [one.next() for one in (late, cancelled, gone)] == [HEARTBEAT] * 3
    stack.http.delete(f"/v1/jobs/{cancelled.response.headers['x-job-id']}")
    suspended.delete(f"rq:job:{gone.response.headers['x-job-id']}")

    said = [texts(one.rest()) for one in (late, cancelled, gone)]

    assert said == [["deadline_exceeded"], ["cancelled"], ["job_lost"]]


def test_a_stream_that_was_awaited_in_vain_is_told_where_it_is_and_its_job_kept(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(BITLADDER_INTAKE__HEARTBEAT_S="0.2", BITLADDER_INTAKE__AWAIT_TIMEOUT_S="1")
    stack.intake()
    stream = Stream(stack.url, UNSERVED)
    *_, last = (line for line in stream.rest() if line != HEARTBEAT)
    link = f"/v1/jobs/{stream.response.headers['x-job-id']}"

    error = json.loads(last.removeprefix("data: "))["error"]

    assert error["code"] == "await_timeout"
    assert f"GET {link} " in error["message"]
    assert stack.http.get(link).json()["status"] == "queued"


def test_who_leaves_while_heartbeats_come_leaves_no_job(stack: Stack, suspended: redis.Redis) -> None:
    stream = Stream(stack.url)
    assert stream.next() == HEARTBEAT
    job_id = stream.response.headers["x-job-id"]

    stream.close()

    wait_until(lambda: stack.http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled", "it is cancelled")


def test_a_stream_that_has_only_heartbeats_goes_on_at_another_intake(
    stack: Stack, suspended: redis.Redis, make_stack: Callable[..., Stack]
) -> None:
    first = make_stack(BITLADDER_INTAKE__HEARTBEAT_S="0.2", BITLADDER_INTAKE__DRAIN_GRACE_S="0.2")
    first.intake()
    suspended.set("rq:suspended", 1)  # what a fresh Redis has not
    stream = Stream(first.url)
    assert stream.next() == HEARTBEAT
    first.processes[0].terminate()

    event, _, data = [line for line in stream.rest() if line != HEARTBEAT]
    told = json.loads(data.removeprefix("data: "))
    suspended.delete("rq:suspended")
    rest = stack.http.get(told["url"], headers={"Last-Event-ID": told["last_event_id"]}).text

    assert event == "event: restart"
    assert texts(rest.splitlines()) == ["a", " b", " c", " d", "[DONE]"]


def test_nobody_on_the_way_may_keep_an_answer_or_collect_a_stream(stack: Stack) -> None:
    awaited = stack.http.post("/v1/completions", json=BODY | ONE)
    polled = stack.http.get(f"/v1/jobs/{awaited.headers['x-job-id']}")
    refused = stack.http.get("/v1/jobs/nobody")
    streams = [
        stack.http.post("/v1/completions", json=STREAM | ONE),
        stack.http.get(f"/v1/jobs/{stack.http.post('/v1/jobs', json=STREAM | ONE).json()['id']}/events"),
    ]

    assert [one.headers["cache-control"] for one in (awaited, polled, refused)] == ["no-store"] * 3
    assert [one.headers["cache-control"] for one in streams] == ["no-cache, no-store, no-transform"] * 2
    assert [one.headers["x-accel-buffering"] for one in streams] == ["no"] * 2


def test_a_stream_without_heartbeats_begins_with_its_job(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_INTAKE__HEARTBEAT_S="0", BITLADDER_INTAKE__AWAIT_TIMEOUT_S="1")
    stack.intake()

    answer = stack.http.post("/v1/completions", json=STREAM, headers=UNSERVED)

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "await_timeout")


@pytest.mark.long
def test_a_stream_begins_after_the_heartbeat_that_ships(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()

    start = time.monotonic()
    stream = Stream(stack.url, UNSERVED)
    began_s = time.monotonic() - start

    assert stream.next() == HEARTBEAT
    assert 14 < began_s < 18
    stream.close()
