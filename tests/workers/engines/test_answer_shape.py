"""workers/engines/answer_shape.py: what a whole answer has and its chunks leave out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from workers.engines.answer_shape import shape_of, shaped

WHOLE: dict[str, Any] = {
    "id": "a",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "x", "refusal": None, "reasoning": "why", "annotations": []},
            "logprobs": {"content": [{"token": "x", "top_logprobs": [{"token": "x", "logprob": -0.5}]}]},
            "finish_reason": "stop",
        }
    ],
    "service_tier": None,
    "token_ids": [3, 7],  # the first client asked for them
    "usage": {"prompt_tokens": 1, "prompt_tokens_details": None},
}


def test_an_answer_gets_the_fields_that_it_lacks_in_their_places_and_keeps_its_own() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "y"}, "logprobs": None, "finish_reason": "length"}
    assembled = {"usage": {"prompt_tokens": 7}, "id": "b", "choices": [choice], "more": [{"finish_reason": 1}]}

    filled = shaped(msgspec.json.encode(assembled), shape_of(msgspec.json.encode(WHOLE)))

    message: dict[str, Any] = {
        "role": "assistant",
        "content": "y",
        "refusal": None,
        "reasoning": None,
        "annotations": [],
    }
    expected = {
        "id": "b",
        "choices": [choice | {"message": message}],
        "service_tier": None,
        "token_ids": None,
        "usage": {"prompt_tokens": 7, "prompt_tokens_details": None},
        "more": [{"finish_reason": 1}],
    }
    assert filled == msgspec.json.encode(expected)


@pytest.mark.parametrize("answer", [b"", b'{"choices":[{"text":"x"}]}'], ids=["too large", "without token counts"])
def test_an_answer_that_is_not_all_there_gets_no_shape(answer: bytes) -> None:
    assert shaped(answer, shape_of(msgspec.json.encode(WHOLE))) is None
