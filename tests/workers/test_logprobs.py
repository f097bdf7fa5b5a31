"""workers/engines/logprobs.py: numbers that are none."""

from __future__ import annotations

import pytest

from workers.engines.logprobs import has_bare_nan, is_corrupted


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        (b'{"choices": [{"text": "a", "logprobs": null}]}', False),
        (b'{"choices": [{"logprobs": {"token_logprobs": [-0.1, -2]}}]}', False),
        (b'{"choices": [{"logprobs": {"token_logprobs": [null, -2]}}]}', False),  # the echoed prompt's first token
        (b'{"choices": [{"logprobs": {"token_logprobs": [-0.1, null]}}]}', True),
        (b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":-0.1}]}}]}', False),
        (b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":null}]}}]}', True),
        (b'{"choices": [{"logprobs": {"some": "other shape"}}]}', False),
        (b'{"choices": [{"logprobs": {"token_logprobs": "other"}}]}', False),
    ],
)
def test_a_null_where_a_number_is_expected(body: bytes, bad: bool) -> None:
    assert is_corrupted(body) is bad


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        (b'{"logprob": NaN}', True),
        (b'{"logprob": -Infinity}', True),
        (b'{"text": "NaN", "broken": ', False),
        (b"Internal Server Error", False),
    ],
)
def test_a_bare_word_where_a_number_is_expected(body: bytes, bad: bool) -> None:
    assert has_bare_nan(body) is bad
