"""An intake below a path of somebody else's site: its links begin with it, whether the proxy takes it off or not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import pytest
import redis

from bitladder.client import Client
from bitladder.errors import ConfigError
from tests.conftest import Stack, make_settings

PREFIX = "/llm/v2"
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 2}
STREAM = BODY | {"stream": True}
KEYED = {"Idempotency-Key": "one"}


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    redis.Redis.from_url(redis_url).flushall()
    stack = Stack(
        redis_url,
        BITLADDER_INTAKE__ROOT_PATH=PREFIX,
        BITLADDER_INTAKE__AWAIT_TIMEOUT_S="0.5",
        BITLADDER_INTAKE__DRAIN_GRACE_S="0.1",
    )
    stack.intake()  # without a worker
    yield stack
    stack.stop()


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["taken off", "left in"])
def test_links_begin_with_the_prefix_whether_or_not_a_request_does(stack: Stack, prefix: str) -> None:
    accepted = stack.http.post(f"{prefix}/v1/jobs", json=BODY)
    late = stack.http.post(f"{prefix}/v1/completions", json=BODY)
    stack.http.post(f"{prefix}/v1/completions", json=STREAM, headers=KEYED)
    repeated = stack.http.post(f"{prefix}/v1/completions", json=STREAM, headers=KEYED)
    links = [one.headers["location"] for one in (accepted, late, repeated)]
    jobs = [stack.http.get(link.removesuffix("/stream")) for link in links]

    assert [one.status_code for one in (accepted, late, repeated)] == [202, 504, 409]
    paths = [f"{PREFIX}/v1/jobs/{one.headers['x-job-id']}" for one in (accepted, late, repeated)]
    assert links == [*paths[:2], f"{paths[2]}/stream"]
    assert all(
        f"GET {link}" in one.json()["error"]["message"] for one, link in ((late, links[1]), (repeated, links[2]))
    )
    assert accepted.json()["urls"]["self"] == links[0]
    assert [f"{PREFIX}/v1/jobs/{job.json()['id']}" for job in jobs] == paths


def test_ids_are_matched_as_they_were_quoted_below_the_prefix_too(stack: Stack) -> None:
    found = [stack.http.get(f"{prefix}/v1/jobs/a%2Fb%20c") for prefix in ("", PREFIX)]

    assert [one.json()["error"]["message"] for one in found] == ["there is no job 'a/b c'"] * 2


def test_the_document_says_where_the_api_is(stack: Stack) -> None:
    assert stack.http.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]


def test_our_client_takes_an_url_with_a_prefix(stack: Stack) -> None:
    with Client(stack.url + PREFIX) as client:
        job_id = client.submit(BODY)["id"]

        assert client.cancel(job_id)["status"] == "cancelled"


@pytest.mark.parametrize("path", [f"{PREFIX}v1/models", "/llm/v1/models", f"{PREFIX}{PREFIX}/v1/models", PREFIX])
def test_nothing_but_the_prefix_is_taken_for_it(stack: Stack, path: str) -> None:
    assert stack.http.get(path).status_code == 404


def test_whoever_waits_when_the_intake_ends_is_sent_below_the_prefix(redis_url: str) -> None:
    ending = Stack(redis_url, BITLADDER_INTAKE__ROOT_PATH=PREFIX, BITLADDER_INTAKE__DRAIN_GRACE_S="0.1")
    ending.intake()
    job_id = ending.http.post("/v1/jobs", json=STREAM).json()["id"]
    with httpx2.stream("GET", f"{ending.url}/v1/jobs/{job_id}/stream", timeout=20) as answer:
        ending.processes[0].terminate()
        (data,) = [line for line in answer.iter_lines() if line.startswith("data: ")]
    ending.stop()

    assert json.loads(data.removeprefix("data: "))["url"] == f"{PREFIX}/v1/jobs/{job_id}/stream"


@pytest.mark.parametrize("odd", ["llm", "/llm/", "/", "//host", "/a b", "/..", "/a/../b", "/l%6Cm", "https://host/llm"])
def test_what_is_no_prefix_of_a_path_is_refused(odd: str) -> None:
    with pytest.raises(ConfigError, match=r"intake\.root_path"):
        make_settings("redis://127.0.0.1:1/0", intake__root_path=odd)
