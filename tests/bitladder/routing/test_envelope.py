"""bitladder/routing/envelope.py: all that the headers say of a request, in one object."""

from __future__ import annotations

import pytest

from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.envelope import Envelope, LatencyBudget, read_envelope


def test_all_headers_are_read_into_one_envelope() -> None:
    headers = {
        "x-priority": "9",
        "x-max-latency-ms": "900",
        "x-min-tier": " int8 ",
        "x-max-tier": "fp8",
        "x-deadline-ms": "5000",
        "x-stainless-read-timeout": "3.5",
        "x-unknown": "1",
    }

    assert read_envelope(headers, lane=Lane.BATCH, await_timeout_s=600) == Envelope(
        priority=9,
        max_latency_ms=900,
        min_tier="int8",
        max_tier="fp8",
        deadline_ms=5000,
        lane=Lane.BATCH,
        latency_budget=LatencyBudget(whole_s=3),
    )
    assert read_envelope({}) == Envelope()


@pytest.mark.parametrize(
    ("header", "value"),
    [("X-Priority", "11"), ("X-Priority", "five"), ("X-Max-Latency-Ms", "0"), ("X-Deadline-Ms", "-1")],
)
def test_a_number_out_of_its_range_is_refused_by_the_header_s_name(header: str, value: str) -> None:
    with pytest.raises(RequestError, match=header) as caught:
        read_envelope({header.lower(): value})

    assert caught.value.param == header


@pytest.mark.parametrize("header", ["x-stainless-read-timeout", "x-stainless-timeout"])
@pytest.mark.parametrize(
    ("timeout", "deadline_ms", "stream", "expected"),
    [
        (None, None, False, LatencyBudget(whole_s=600)),
        (None, 2000, False, LatencyBudget(whole_s=2)),
        ("20", None, False, LatencyBudget(whole_s=19.5)),
        ("20.5", None, False, LatencyBudget(whole_s=20)),
        ("20.5", 5000, True, LatencyBudget(whole_s=5, first_s=20)),
        ("nonsense", None, True, LatencyBudget(first_s=600)),
        ("nan", None, False, LatencyBudget(whole_s=600)),
        ("inf", None, False, LatencyBudget(whole_s=600)),
    ],
)
def test_the_latency_budget_is_the_deadline_or_what_the_client_s_library_says(
    header: str, timeout: str | None, deadline_ms: int | None, stream: bool, expected: LatencyBudget
) -> None:
    headers = {
        header: timeout,
        "x-deadline-ms": None if deadline_ms is None else str(deadline_ms),
    }
    sent = {name: value for name, value in headers.items() if value is not None}

    assert read_envelope(sent, stream=stream, await_timeout_s=600).latency_budget == expected


def test_of_two_timeouts_of_libraries_the_shorter_counts() -> None:
    headers = {"x-stainless-read-timeout": "20", "x-stainless-timeout": "3"}

    assert read_envelope(headers, await_timeout_s=600).latency_budget == LatencyBudget(whole_s=2.5)


def test_a_client_that_does_not_wait_has_no_limit_but_its_deadline() -> None:
    headers = {"x-stainless-read-timeout": "20"}

    assert read_envelope(headers).latency_budget == LatencyBudget()
    assert read_envelope(headers | {"x-deadline-ms": "3000"}).latency_budget == LatencyBudget(whole_s=3)
