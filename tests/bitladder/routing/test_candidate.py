"""bitladder/routing/candidate.py: a share of a model's requests goes to its candidate, always that of the same keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from bitladder.endpoints import Endpoint
from bitladder.errors import ConfigError, ModelNotFoundError, RequestError
from bitladder.routing.accept import Accepted, Incoming, accept
from bitladder.routing.candidate import DrawEnd
from bitladder.settings.access import KeyEnvelope, KeyRules
from bitladder.settings.sections import Settings
from tests.conftest import make_settings

URL = "redis://127.0.0.1:1/0"
KEYS = [f"key-{number}" for number in range(2000)]
LADDER = ("int4", "int8", "fp8")


def with_canary(*tiers: str, candidate: dict[str, Any] | None = None, **canary: Any) -> Settings:  # noqa: ANN401
    table: dict[str, Any] = {"tiers": [{"name": tier} for tier in tiers or LADDER], "tool_call_parser": "hermes"}
    table |= candidate or {}
    named = {"model": "next", "share": 0.1} | canary
    return make_settings(URL, models__next=table, models__smollm2__canary=named)


def ask(
    settings: Settings,
    *,
    key: str = "",
    model: str = "smollm2",
    live: Sequence[str] = LADDER,
    rules: KeyRules | None = None,
    **headers: str,
) -> Accepted:
    def has_worker(name: str, tiers: Sequence[str]) -> bool:
        assert name == "next"
        return bool(set(live) & set(tiers))

    incoming = Incoming(
        endpoint=Endpoint.COMPLETIONS,
        body=msgspec.json.encode({"model": model, "prompt": "x"}),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        request_id=f"r-{key}",
        key_name=key,
        rules=rules or KeyRules(),
        has_worker=has_worker,
    )
    return accept(incoming, settings)


def moved(settings: Settings) -> set[str]:
    return {key for key in KEYS if ask(settings, key=key).submission.model == "next"}


def test_the_share_of_the_keys_is_right_and_a_share_that_grows_keeps_those_it_had() -> None:
    few, more = moved(with_canary(share=0.1)), moved(with_canary(share=0.3))

    for share, keys in ((0.1, few), (0.3, more)):
        assert abs(len(keys) - 2000 * share) < 4 * math.sqrt(2000 * share * (1 - share))
    assert few < more
    assert moved(with_canary(share=0)) == set()
    assert moved(with_canary(share=1)) == set(KEYS)
    assert moved(with_canary(share=0.1, salt="again")) not in (few, set())


def test_what_the_candidate_is_given_says_which_model_was_asked_for_and_names_the_candidate_to_its_engine() -> None:
    accepted = ask(with_canary(share=1), key="a", model="smollm2:int4")
    job = accepted.submission

    assert (job.queue, job.request.decision.canary_of) == ("next:int4:normal:max-int4", "smollm2")
    assert job.request.decision.label == "canary:smollm2>article@1"
    assert msgspec.json.decode(job.request.body)["model"] == "next"
    assert accepted.drawn
    assert (accepted.drawn.model, accepted.drawn.end) == ("smollm2", DrawEnd.CANDIDATE)
    assert ask(make_settings(URL), key="a").submission.request.decision.canary_of is None


def test_a_candidate_without_a_live_worker_that_may_serve_a_request_does_not_get_it() -> None:
    settings = with_canary(share=1)

    for live, lowest in (((), "int4"), (("int4",), "int8")):
        accepted = ask(settings, key="a", live=live, x_min_tier=lowest)
        assert (accepted.submission.model, accepted.drawn and accepted.drawn.end) == ("smollm2", DrawEnd.NO_WORKER)
        assert accepted.submission.request.decision.canary_of is None
    # A producer beside Redis knows of no workers: it names the model itself.
    unknown = Incoming(
        endpoint=Endpoint.COMPLETIONS, body=b'{"model":"smollm2","prompt":"x"}', headers={}, request_id="", key_name="a"
    )
    assert accept(unknown, settings).submission.model == "smollm2"


@pytest.mark.parametrize(
    ("request_of", "rules"),
    [
        ({"model": "smollm2:fp8"}, None),
        ({"x_min_tier": "fp8"}, None),
        ({"x_max_tier": "fp8"}, None),
        ({}, KeyRules(name="a", limits=KeyEnvelope(floor="fp8"))),
        ({}, KeyRules(name="a", defaults=KeyEnvelope(floor="fp8"))),
    ],
)
def test_who_asks_for_a_tier_that_the_candidate_lacks_gets_it_of_the_model(
    request_of: dict[str, str], rules: KeyRules | None
) -> None:
    accepted = ask(with_canary("int4", "int8", share=1), key="a", rules=rules, **request_of)

    assert accepted.submission.model == "smollm2"
    assert accepted.drawn
    assert accepted.drawn.end is DrawEnd.UNFIT


def test_a_request_may_say_whether_the_candidate_answers_it() -> None:
    settings, drawn = with_canary(share=0.1), min(moved(with_canary(share=0.1)))
    other = next(key for key in KEYS if key not in moved(settings))

    assert ask(settings, key=drawn, x_canary="false").submission.model == "smollm2"
    assert ask(settings, key=other, x_canary="true").submission.model == "next"
    assert ask(with_canary(share=0), key=other, x_canary="true").submission.model == "smollm2"
    with pytest.raises(RequestError, match="X-Canary must be true or false"):
        ask(settings, key=drawn, x_canary="maybe")


def test_requests_without_key_and_tenant_are_drawn_by_request_alone() -> None:
    assert ask(with_canary(share=0.99)).drawn is None
    assert ask(with_canary(share=1, drawn_by="request")).submission.model == "next"


def test_names_mean_what_they_meant() -> None:
    settings = with_canary(share=1)

    assert ask(settings, key="a", model="next").drawn is None
    with pytest.raises(ModelNotFoundError, match="smollm3"):
        ask(settings, key="a", model="smollm3")
    with pytest.raises(RequestError, match="X-Min-Tier must be one of"):
        ask(settings, key="a", x_min_tier="int2")


@pytest.mark.parametrize(
    ("canary", "candidate", "words"),
    [
        ({"model": "nobody"}, {}, r"models\.smollm2\.canary\.model must be another model \(next\), got 'nobody'"),
        ({"model": "smollm2"}, {}, r"must be another model"),
        ({"share": 1.1}, {}, r"models\.smollm2\.canary\.share: .*less than or equal to 1"),
        ({"drawn_by": "day"}, {}, r"models\.smollm2\.canary\.drawn_by"),
        (
            {},
            {"canary": {"model": "smollm2", "share": 0}},
            r"next has a candidate of its own",
        ),
        ({}, {"tool_call_parser": ""}, r"next needs a tool_call_parser, because smollm2 has one"),
        ({}, {"max_model_len": 100}, r"next has max_model_len 100, below"),
        ({}, {"redis": {"url": "redis://b/0"}}, r"must be at the same Redis"),
    ],
)
def test_a_candidate_that_cannot_answer_for_the_model_is_refused(
    canary: dict[str, Any], candidate: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        with_canary(candidate=candidate, **canary)
