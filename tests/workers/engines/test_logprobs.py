"""workers/engines/logprobs.py and lenient.py: log probabilities of NaN, and JSON that is not quite valid."""

from __future__ import annotations

import pytest

from workers.engines import lenient
from workers.engines.errors import EngineCorruptedError
from workers.engines.logprobs import is_corrupted


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        (b'{"choices": [{"text": "a", "logprobs": null}]}', False),
        (b'{"choices": [{"logprobs": {"token_logprobs": [-0.1, -2]}}]}', False),
        (b'{"choices": [{"logprobs": {"token_logprobs": [null, -2]}}]}', False),  # the echoed prompt's first token
        (b'{"choices": [{"logprobs": {"token_logprobs": [-0.1, null]}}]}', True),
        (b'{"choices": [{"logprobs": {"token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": null}]}}]}', True),
        (b'{"choices": [{"logprobs": {"token_logprobs": [null], "top_logprobs": [null]}}]}', False),
        (b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":-0.1}]}}]}', False),
        (b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":null}]}}]}', True),
        (b'{"choices":[{"logprobs":{"content":[{"logprob":-1,"top_logprobs":[{"logprob":null}]}]}}]}', True),
        (b'{"choices":[{"logprobs":{"content":null,"refusal":[{"token":"a","logprob":null}]}}]}', True),
        (b'{"choices":[{"prompt_logprobs":[null,{"7":{"logprob":-1.5,"rank":1}}]}]}', False),
        (b'{"choices":[{"prompt_logprobs":[null,{"7":{"logprob":null,"rank":1}}]}]}', True),
        (b'{"choices":[],"prompt_logprobs":[null,{"7":{"logprob":null,"rank":1}}]}', True),
        (b'{"choices": [{"logprobs": {"some": "other shape"}}]}', False),
        (b'{"choices": [{"logprobs": {"token_logprobs": "other"}}]}', False),
        (b'{"choices": [3, {"logprobs": {"content": [3]}}], "prompt_logprobs": [3]}', False),
        (b'{"choices": 3}', False),
    ],
)
def test_a_null_where_a_number_is_expected(body: bytes, bad: bool) -> None:
    assert is_corrupted(lenient.read(body)[0], is_echo=True) is bad


def test_the_first_token_of_an_answer_without_its_prompt_has_a_probability() -> None:
    assert is_corrupted({"choices": [{"logprobs": {"token_logprobs": [None, -2]}}]}, is_echo=False)


@pytest.mark.parametrize("body", [b'{"logprob": NaN}', b'{"logprob": -Infinity}', b'{"logprob": 1e999}'])
def test_a_bare_word_where_a_number_is_expected_is_corruption(body: bytes) -> None:
    with pytest.raises(EngineCorruptedError):
        lenient.read(body)


@pytest.mark.parametrize("body", [b'{"text": "NaN", "broken": ', b"NaN of", b"Internal Server Error", b"[" * 100_000])
def test_what_is_no_json_is_none_for_a_word_in_it(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|nested too deeply"):
        lenient.read(body)
