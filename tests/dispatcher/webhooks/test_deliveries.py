"""dispatcher/webhooks/deliveries.py: what an event is called, who hears of it, and when again."""

from __future__ import annotations

import msgspec
import pytest

from bitladder.queue.calls.webhooks import Hook
from bitladder.settings.intake_section import WebhookSettings
from dispatcher.webhooks.deliveries import EVENT_TYPES, Subscriber, deliveries_of, pause_s, read_event

SCHEDULE = WebhookSettings().retry_s


def line(how: str, hook: Hook, about: str = "1") -> bytes:
    return f"1700000000123 {how} {about} {hook.text()}".encode()


@pytest.mark.parametrize(
    ("state", "response"),
    [("finished", "completed"), ("failed", "failed"), ("cancelled", "cancelled"), ("expired", "failed")],
)
def test_an_end_has_openais_name_where_it_is_a_response_and_ours_where_it_is_another_job(
    state: str, response: str
) -> None:
    job, of_response = read_event(line(state, Hook())), read_event(line(state, Hook(), "resp_1"))

    assert (job.type, job.about, job.created_at) == (f"job.{state}", "1", 1_700_000_000)
    assert (of_response.type, of_response.about) == (f"response.{response}", "resp_1")
    assert {job.type, of_response.type} <= set(EVENT_TYPES)


def test_a_response_is_incomplete_or_has_failed_where_its_answer_says_so() -> None:
    response = line("finished", Hook(), "resp_1")

    assert read_event(response, status="incomplete").type == "response.incomplete"
    assert read_event(response, status="failed").type == "response.failed"
    assert read_event(response, status="completed").type == "response.completed"
    assert read_event(line("cancelled", Hook(), "resp_1"), status="incomplete").type == "response.cancelled"


def test_an_event_has_the_same_id_for_every_process_and_another_than_other_events() -> None:
    lines = [line("finished", Hook()), line("failed", Hook()), line("finished", Hook(), "2")]

    assert read_event(lines[0]) == read_event(lines[0])
    assert len({read_event(raw).id for raw in lines}) == 3


@pytest.mark.parametrize("raw", [b"", b"1 finished 1", b"x finished 1 {}", b"1 finished 1 []", b"1 finished 1 {"])
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_event(raw)


def test_an_event_goes_to_the_endpoints_that_ask_for_it_and_to_whom_the_request_names() -> None:
    endpoints = [
        Subscriber(id="we_1", url="https://a.example/", event_types=frozenset({"job.finished", "job.failed"})),
        Subscriber(id="we_2", url="https://b.example/", event_types=frozenset({"job.failed"})),
    ]
    named = Hook(url="https://c.example/x", secret="s", key="")  # noqa: S106  (no secret)
    event = read_event(line("finished", named))
    made = {target: msgspec.json.decode(delivery) for target, _, delivery in deliveries_of(event, endpoints)}
    same = read_event(line("finished", Hook(url="https://a.example/")))
    of_key = read_event(line("finished", Hook(key="acme")))

    assert "we_1" in made
    assert "secret" not in made["we_1"]
    assert [delivery["url"] for target, delivery in made.items() if target != "we_1"] == ["https://c.example/x"]
    assert [target for target, _, _ in deliveries_of(same, endpoints)] == ["we_1"], "no URL hears of it twice"
    assert [target for target, _, _ in deliveries_of(of_key, [])] == ["key_acme"]
    assert deliveries_of(read_event(line("expired", Hook())), endpoints) == []


def test_a_delivery_is_tried_for_days_and_then_given_up() -> None:
    pauses = [pause_s(SCHEDULE, attempts, None) for attempts in range(1, len(SCHEDULE) + 2)]

    assert pauses[-1] is None
    assert all(usual <= pause <= 1.1 * usual for usual, pause in zip(SCHEDULE, pauses, strict=False) if pause)
    assert sum(SCHEDULE) > 3 * 86_400
    assert pause_s(SCHEDULE, 1, 60.0) == 60.0, "the receiver's Retry-After"
    assert pause_s(SCHEDULE, 1, 1e9) == max(SCHEDULE)
