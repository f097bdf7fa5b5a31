"""Webhooks as clients see them: real intakes, workers and receivers, and OpenAI's library, which verifies them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from tests.conftest import Stack, wait_until
from tests.integration.webhooks.receiver import SECRET, Received, Receiver, receiving

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
LOOPBACK = {"BITLADDER_WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]', "BITLADDER_WEBHOOKS__RETRY_S": "[0.1, 0.1, 0.1]"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def submit(stack: Stack, url: str, **headers: str) -> str:
    """Submit a job with a webhook; return its id."""
    answer = stack.http.post(
        "/v1/jobs", json=BODY, headers={"X-Webhook-Url": url, "X-Webhook-Secret": SECRET, **headers}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def first(receiver: Receiver, path: str) -> Received:
    wait_until(lambda: bool(receiver.about(path)), f"a delivery to {path}")
    return receiver.about(path)[0]


def test_each_end_of_a_job_is_told_signed_and_read_by_openais_library(
    make_stack: Callable[..., Stack], receiver: Receiver, store: redis.Redis
) -> None:
    stack = make_stack(**LOOPBACK)
    stack.intake()
    cancelled = submit(stack, f"{receiver.url}/cancelled")
    expired = submit(stack, f"{receiver.url}/expired", **{"X-Deadline-Ms": "50"})  # no worker, and nobody asks for it
    assert stack.http.delete(f"/v1/jobs/{cancelled}").status_code == 200
    assert first(receiver, "/cancelled").unwrap().data.id == cancelled
    assert first(receiver, "/cancelled").unwrap().type == "job.cancelled"
    assert first(receiver, "/expired").unwrap().type == "job.expired"
    assert first(receiver, "/expired").unwrap().data.id == expired
    stack.worker("int4")
    finished = submit(stack, f"{receiver.url}/finished")
    event = first(receiver, "/finished").unwrap()

    assert (event.type, event.data.id, event.object) == ("job.finished", finished, "event")
    assert event.id == first(receiver, "/finished").event_id
    assert len(receiver.received) == 3
    wait_until(lambda: not store.exists("bl:webhooks:watched", "bl:webhooks:targets", "bl:webhooks:leases"), "all done")
    assert not store.exists("bl:webhooks:events")
