"""bitladder/routing/aliases.py: fields of an envelope by other systems' names, in the body and in headers."""

from __future__ import annotations

import pytest

from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.accept import Incoming, accept
from bitladder.routing.aliases import SERVICE_TIERS, tiers_of, used_service_tier
from bitladder.routing.body import for_engine, read_body, with_field
from bitladder.routing.envelope import Aliases, LatencyBudget, read_envelope
from bitladder.settings.access import KeyEnvelope, KeyRules
from tests.conftest import make_settings

LADDER = ("int4", "int8-gptq", "fp8")
SETTINGS = make_settings("redis://127.0.0.1:1/0")


def accepted(body: str, **headers: str) -> tuple[str, bytes, str]:
    """Return the queue, the engine's body and the service tier of the answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    text = f'{{"model":"smollm2","prompt":"x"{body}}}'.encode()
    incoming = Incoming(endpoint=Endpoint.COMPLETIONS, body=text, headers=names, request_id="r")
    result = accept(incoming, SETTINGS)
    return result.submission.queue, bytes(result.submission.request.body), result.service_tier


@pytest.mark.parametrize(
    ("service_tier", "lane", "answered"),
    [
        ("auto", "normal", "default"),
        ("default", "normal", "default"),
        ("flex", "batch", "flex"),
        ("scale", "urgent", "scale"),
        ("priority", "urgent", "priority"),
        ("fast", "urgent", "priority"),
        ("ultrafast", "urgent", "ultrafast"),
    ],
)
def test_each_service_tier_means_a_lane_and_the_engine_does_not_see_it(
    service_tier: str, lane: str, answered: str
) -> None:
    queue, body, shown = accepted(f',"service_tier":"{service_tier}","top_p":0.10')

    assert (queue, shown) == (f"smollm2:int4:{lane}", answered)
    assert body == b'{"model":"smollm2","prompt":"x","top_p":0.10}'
    assert set(SERVICE_TIERS) == {"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"}


def test_anthropics_service_tiers_are_understood_at_its_routes_alone() -> None:
    body = b'{"model":"smollm2","messages":[{"role":"user"}],"max_tokens":1,"service_tier":"standard_only"}'
    message, chat = (
        Incoming(endpoint=endpoint, body=body, headers={}, request_id="r")
        for endpoint in (Endpoint.MESSAGES, Endpoint.CHAT)
    )

    assert accept(message, SETTINGS).submission.queue == "smollm2:int4:normal"
    assert b"service_tier" not in bytes(accept(message, SETTINGS).submission.request.body)
    with pytest.raises(RequestError, match="standard_only"):
        accept(chat, SETTINGS)


def test_a_priority_in_the_headers_wins_over_the_service_tier_and_the_answer_says_which_lane_was_used() -> None:
    assert accepted(',"service_tier":"flex"', x_priority="5")[::2] == ("smollm2:int4:normal", "default")
    assert accepted(',"service_tier":"flex"', x_dynamo_request_priority="0")[::2] == ("smollm2:int4:normal", "default")
    assert accepted(',"service_tier":"flex"')[::2] == ("smollm2:int4:batch", "flex")
    assert used_service_tier("scale", Lane.BATCH) == "flex"


def test_a_body_without_these_fields_goes_to_the_engine_as_it_came() -> None:
    raw = b'{ "model" : "m", "prompt": "x", "provider": null }'
    body = read_body(Endpoint.COMPLETIONS, raw)

    assert for_engine(raw, body, "m") is raw
    assert accepted("")[2] == ""
    assert with_field(b'{"a":1.0}', "service_tier", "flex") == b'{"a":1.0,"service_tier":"flex"}'
    assert with_field(b"[DONE]", "service_tier", "flex") == b"[DONE]"


@pytest.mark.parametrize(
    ("quantizations", "ranks"),
    [(["int4"], {0}), (["int8"], {1}), (["int8-gptq"], {1}), (["fp8", "bf16", "int4"], {0, 2})],
)
def test_quantizations_name_tiers_or_their_precision_and_others_are_ignored(
    quantizations: list[str], ranks: set[int]
) -> None:
    assert tiers_of(quantizations, LADDER) == ranks


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (
            '{"quantizations":["bf16","fp4"]}',
            r"provider.quantizations \(bf16, fp4\) must name one .* \(int4, int8, fp8\)",
        ),
        ('{"quantizations":[]}', "provider.quantizations must be a list of at least one name"),
        ('{"quantizations":"int4"}', "provider.quantizations must be a list"),
        ('{"quantizations":[4]}', "provider.quantizations must be a list"),
    ],
)
def test_a_set_without_a_tier_is_refused_by_name(provider: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        accepted(f',"provider":{provider}')


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (',"service_tier":"turbo"', {}, "service_tier must be one of auto, .*ultrafast, got 'turbo'"),
        ("", {"x-allow-below-floor": "maybe"}, "X-Allow-Below-Floor must be true or false, got 'maybe'"),
        ("", {"x-dynamo-request-priority": "high"}, "X-Dynamo-Request-Priority must be a whole number"),
        ("", {"x-llm-d-slo-ttft-ms": "0"}, "X-Llm-D-Slo-Ttft-Ms must be a whole number from 1"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(body: str, headers: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        accepted(body, **headers)


@pytest.mark.parametrize(("header", "priority"), [("0", 5), ("3", 8), ("100", 10), ("-3", 2), ("-100", 1), ("+1", 6)])
def test_dynamo_s_priority_is_a_distance_from_the_usual_one(header: str, priority: int) -> None:
    assert read_envelope({"x-dynamo-request-priority": header}).priority == priority
    assert read_envelope({"x-dynamo-request-priority": header, "x-priority": "7"}).priority == 7


def test_llm_d_s_limits_shorten_the_latency_budget() -> None:
    limits, tokens = {"x-llm-d-slo-ttft-ms": "500", "x-llm-d-slo-tpot-ms": "10"}, Aliases(max_tokens=lambda: 100)

    assert read_envelope(limits, aliases=tokens).latency_budget == LatencyBudget(first_s=0.5, whole_s=1.5)
    assert read_envelope(limits).latency_budget == LatencyBudget(first_s=0.5)
    assert read_envelope(limits | {"x-deadline-ms": "900"}, aliases=tokens).latency_budget.whole_s == 0.9


def test_more_tokens_than_an_answer_can_have_set_no_limit() -> None:
    accepted(f',"max_tokens":1{"0" * 400}', **{"x-llm-d-slo-tpot-ms": "1"})


def test_of_header_alias_and_key_s_default_the_first_wins() -> None:
    key, body = KeyRules("app", KeyEnvelope(lane=Lane.BATCH)), Aliases(service_tier="priority", lane=Lane.URGENT)

    lanes = [
        read_envelope({"x-priority": "5"}, aliases=body, key=key).lane,
        read_envelope({}, lane=Lane.NORMAL, aliases=body, key=key).lane,
        read_envelope({}, aliases=body, key=key).lane,
        read_envelope({}, aliases=Aliases(service_tier="auto"), key=key).lane,
    ]

    assert lanes == [None, Lane.NORMAL, Lane.URGENT, Lane.BATCH]
