"""Service tiers and consent to a lower tier over HTTP: what clients send, engines see, and answers say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.conftest import Stack

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "a b c", "max_tokens": 3}
CONSENT = {"X-Min-Tier": "fp8", "X-Allow-Below-Floor": "true"}


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    redis.Redis.from_url(redis_url).flushall()
    stack = Stack(redis_url)
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


@pytest.mark.parametrize(("service_tier", "answered"), [("flex", "flex"), ("fast", "priority"), ("auto", "default")])
def test_the_answer_and_each_event_of_a_stream_say_the_service_tier_that_was_used(
    stack: Stack, service_tier: str, answered: str
) -> None:
    body = BODY | {"service_tier": service_tier, "provider": {"quantizations": ["int4", "bf16"]}}
    whole = stack.http.post("/v1/completions", json=body)
    stream = stack.http.post("/v1/completions", json=body | {"stream": True})

    assert whole.json()["service_tier"] == answered
    assert whole.json()["choices"][0]["text"].split() == ["a", "b", "c"]
    assert whole.headers["X-Tier"] == "int4"
    events = [line for line in stream.text.splitlines() if line.startswith("data: {")]
    assert len(events) >= 3
    assert all(f'"service_tier":"{answered}"' in event for event in events)
    assert stack.http.post("/v1/completions", json=BODY).json().get("service_tier") is None


def test_a_job_is_served_below_its_floor_with_consent_alone_and_the_answer_says_so(stack: Stack) -> None:
    answer = stack.http.post("/v1/completions", json=BODY, headers=CONSENT)
    job = stack.http.get(f"/v1/jobs/{answer.headers['X-Job-Id']}").json()
    stream = stack.http.post("/v1/completions", json=BODY | {"stream": True}, headers=CONSENT)
    without = stack.http.post("/v1/completions", json=BODY, headers={"X-Min-Tier": "fp8", "X-Deadline-Ms": "600"})

    assert answer.status_code == 200
    shown = [answer.headers.get(name) for name in ("X-Tier", "X-Floor", "X-Served-Below-Floor", "X-Overflowed-From")]
    assert shown == ["int4", "fp8", "true", None]
    assert (job["served_below_floor"], job["tier"], job["floor"]) == (True, "int4", "fp8")
    assert job["queue"] == "smollm2:fp8:normal:only-int4,int8,fp8"
    assert stream.text.endswith(": x-served-below-floor: true\n\ndata: [DONE]\n\n")
    assert without.status_code == 504
    assert "X-Served-Below-Floor" not in without.headers


def test_a_set_that_contradicts_a_header_is_refused_by_both_names(stack: Stack) -> None:
    body = BODY | {"provider": {"quantizations": ["int4"]}}
    answer = stack.http.post("/v1/completions", json=body, headers={"X-Min-Tier": "int8"})

    assert answer.status_code == 400
    assert "X-Min-Tier (int8) and provider.quantizations (int4) contradict" in answer.json()["error"]["message"]
