"""bitladder/routing/cascade.py: what is asked of an engine, how margins read, and what a calibration says."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.endpoints import Endpoint
from bitladder.errors import ConfigError
from bitladder.routing.cascade import (
    Calibration,
    Cascade,
    Curve,
    has_ended,
    margins_of,
    max_tokens_of,
    read_calibration,
    without_logprobs,
)

LADDERS = {"m": ("int4", "int8")}
CURVE: dict[str, Any] = {"margins": [0.5, 2.0], "confidences": [0.2, 0.9]}
FILE: dict[str, Any] = {"format": 1, "statistic": "mean", "models": {"m": {"int4": CURVE}}}
CASCADE = Cascade(msgspec.convert(FILE, Calibration), Curve(**CURVE), 0.5)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "x"}


def chat_answer(*pairs: tuple[float, float]) -> bytes:
    content = [{"token": "t", "logprob": a, "top_logprobs": [{"logprob": a}, {"logprob": b}]} for a, b in pairs]
    return msgspec.json.encode({"choices": [{"index": 0, "logprobs": {"content": content}}]})


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    steps = draw(st.lists(st.floats(0.001, 5), min_size=1, max_size=20))
    levels = sorted(draw(st.lists(st.floats(0, 1), min_size=len(steps), max_size=len(steps))))
    return Curve(margins=list(accumulate(steps)), confidences=levels)


@given(curves(), st.floats(-10, 200), st.floats(-10, 200))
def test_a_confidence_is_a_share_and_never_falls_where_margins_rise(curve: Curve, first: float, second: float) -> None:
    low, high = sorted((first, second))

    assert 0 <= curve.at(low) <= curve.at(high) + 1e-12 <= 1 + 1e-12
    assert curve.at(curve.margins[0]) == curve.confidences[0]
    assert curve.at(math.inf) == curve.confidences[-1]


@given(st.lists(st.floats(0, 20), min_size=1), st.floats(0, 1))
def test_a_statistic_lies_between_the_least_and_the_largest_margin(margins: list[float], quantile: float) -> None:
    for statistic in ("mean", "quantile"):
        calibration = Calibration(format=1, statistic=statistic, quantile=quantile, models={})
        assert min(margins) - 1e-9 <= calibration.statistic_of(margins) <= max(margins) + 1e-9


def test_a_margin_is_the_best_token_less_the_second_best() -> None:
    assert margins_of(chat_answer((-0.5, -1.5), (-9999, -0.1))) == [1.0, 20.0]
    top = [None, {"a": -0.5, "b": -3.0, "c": -0.75}, {"only": -0.1}]
    assert margins_of(msgspec.json.encode({"choices": [{"logprobs": {"top_logprobs": top}}]})) == [0.25]


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"choices":[]}', b'{"choices":[{"logprobs":null}]}', b"\xff"])
def test_an_answer_that_shows_no_margins_has_no_confidence(answer: bytes) -> None:
    assert CASCADE.confidence(answer) is None


def test_the_confidence_is_read_from_the_curve() -> None:
    assert CASCADE.confidence(chat_answer((-1, -2), (-1, -2.5))) == pytest.approx(0.55)
    assert CASCADE.confidence(chat_answer((-1, -1.1))) == 0.2


def test_a_curve_may_be_of_the_beginning_alone() -> None:
    early = Cascade(msgspec.convert(FILE, Calibration), Curve(after_tokens=2, **CURVE), 0.5)
    pairs = [(-1.0, -2.0), (-1.0, -2.5), (-1.0, -21.0)]

    assert early.confidence(chat_answer(*pairs)) == CASCADE.confidence(chat_answer(*pairs[:2]))
    assert early.confidence(chat_answer(pairs[0])) == CASCADE.confidence(chat_answer(pairs[0]))


@pytest.mark.parametrize(
    ("endpoint", "limits", "count"),
    [
        (Endpoint.CHAT, {}, 1024),
        (Endpoint.CHAT, {"max_tokens": 7}, 7),
        (Endpoint.CHAT, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (Endpoint.COMPLETIONS, {"max_completion_tokens": 9}, 16),
        (Endpoint.COMPLETIONS, {"max_tokens": 7}, 7),
        (Endpoint.COMPLETIONS, {"max_tokens": "many"}, 16),
    ],
)
def test_the_length_of_an_answer_is_what_its_request_allows_or_usual(
    endpoint: Endpoint, limits: dict[str, Any], count: int
) -> None:
    assert max_tokens_of(endpoint, msgspec.json.encode(limits)) == count


@pytest.mark.parametrize(
    ("chunk", "is_last"),
    [
        ({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}, False),
        ({"choices": [{"index": 0, "text": "x"}]}, False),
        ({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]}, True),
        ({"choices": [], "usage": {}}, True),
    ],
)
def test_a_chunk_says_whether_tokens_follow(chunk: dict[str, Any], is_last: bool) -> None:
    assert has_ended(msgspec.json.encode(chunk)) is is_last


@pytest.mark.parametrize(
    ("endpoint", "body", "added"),
    [
        (Endpoint.CHAT, CHAT, {"logprobs": True, "top_logprobs": 2}),
        (Endpoint.CHAT, CHAT | {"logprobs": False, "n": 1, "tools": []}, {"logprobs": True, "top_logprobs": 2}),
        (Endpoint.CHAT, CHAT | {"logprobs": True, "top_logprobs": 5}, {}),
        (Endpoint.CHAT, CHAT | {"logprobs": True}, None),
        (Endpoint.CHAT, CHAT | {"top_logprobs": 2}, None),  # which the engine has to refuse
        (Endpoint.CHAT, CHAT | {"n": 2}, None),
        (Endpoint.CHAT, CHAT | {"tools": [{"type": "function"}]}, None),
        (Endpoint.CHAT, CHAT | {"stream": True}, None),
        (Endpoint.CHAT, CHAT | {"stream_options": {"include_usage": True}}, None),  # and this
        (Endpoint.RESPONSES, {"model": "m", "input": "x"}, None),
        (Endpoint.COMPLETIONS, COMPLETION, {"logprobs": 2}),
        (Endpoint.COMPLETIONS, COMPLETION | {"prompt": [1, 2, 3]}, {"logprobs": 2}),
        (Endpoint.COMPLETIONS, COMPLETION | {"prompt": ["a", "b"]}, None),
        (Endpoint.COMPLETIONS, COMPLETION | {"logprobs": 0}, None),
        (Endpoint.COMPLETIONS, COMPLETION | {"logprobs": 3}, {}),
        (Endpoint.COMPLETIONS, COMPLETION | {"best_of": 3}, None),
        (Endpoint.COMPLETIONS, COMPLETION | {"echo": True}, None),
    ],
)
def test_alternatives_are_asked_for_where_one_answer_can_be_judged(
    endpoint: Endpoint, body: dict[str, Any], added: dict[str, Any] | None
) -> None:
    asked = CASCADE.asking(endpoint, msgspec.json.encode(body))

    assert (asked and msgspec.json.decode(asked)) == (None if added is None else body | added)


def test_an_answer_loses_its_log_probabilities_and_nothing_else() -> None:
    answer = b'{"id": 1.50, "choices":[{"text":"\\u00e9","logprobs":{"top_logprobs":[]},"index":0}],"x":1e5}'

    assert without_logprobs(answer) == b'{"id":1.50,"choices":[{"text":"\\u00e9","logprobs":null,"index":0}],"x":1e5}'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format"),
        ({"statistic": "max"}, "statistic"),
        ({"models": {"n": {}}}, "'n': expected one of m"),
        ({"models": {"m": {"bf16": CURVE}}}, "'bf16'"),
        ({"models": {"m": {"int4": CURVE | {"confidences": [0.9, 0.2]}}}}, "never fall"),
        ({"models": {"m": {"int4": CURVE | {"confidences": [0.9, 1.2]}}}}, "<= 1"),
        ({"models": {"m": {"int4": CURVE | {"confidences": [0.9]}}}}, "as many confidences"),
        ({"models": {"m": {"int4": CURVE | {"margins": [2.0, 2.0]}}}}, "rise"),
        ({"models": {"m": {"int4": {"margins": [], "confidences": []}}}}, "length"),
        ({"models": {"m": {"int4": CURVE | {"after_tokens": 0}}}}, "models.m.int4: Expected `int` >= 1"),
        ({"models": {"m": {"fp8": CURVE, "int4": [CURVE]}}}, "models.m.int4: Expected `object`, got `array`"),
        ({"models": {"m": {"int4": CURVE, "fp8": {"confidences": []}}}}, "models.m.fp8: Object missing required field"),
        ({"odd": 1}, "odd"),
    ],
)
def test_a_wrong_calibration_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=r"cascade\.calibration: 'c\.json'") as refusal:
        read_calibration(msgspec.json.encode(FILE | change), "c.json", LADDERS)

    assert words in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b'{"format": NaN}', b"[" * 10_000, b" " * (1 << 21)])
def test_what_is_no_calibration_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        read_calibration(data, "c.json", LADDERS)
