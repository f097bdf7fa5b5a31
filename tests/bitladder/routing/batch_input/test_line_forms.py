"""A line of batch input may be a prompt or a chat alone."""

from __future__ import annotations

import json

import pytest

from bitladder.routing.batch_input.line_forms import CHAT, COMPLETIONS, BadLineError, read_plain_line

PLAIN = {
    b'{"prompt": "Hi", "max_tokens": 5}': (COMPLETIONS, {"model": "m", "max_tokens": 5, "prompt": "Hi"}),
    b'{"messages": [], "model": "n"}': (CHAT, {"model": "n", "max_tokens": 9, "messages": []}),
    b'[{"role": "user", "content": "Hi"}]': (
        CHAT,
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    b'"a \\"quoted\\" text"': (COMPLETIONS, {"model": "m", "max_tokens": 9, "prompt": 'a "quoted" text'}),
    b"What is 2 + 2?": (COMPLETIONS, {"model": "m", "max_tokens": 9, "prompt": "What is 2 + 2?"}),
    b"[INST] Hi": (COMPLETIONS, {"model": "m", "max_tokens": 9, "prompt": "[INST] Hi"}),
    b"42": (COMPLETIONS, {"model": "m", "max_tokens": 9, "prompt": "42"}),
}


@pytest.mark.parametrize("raw", PLAIN)
def test_a_plain_line_is_a_prompt_or_a_chat_with_the_fields_of_all_lines_below_its_own(raw: bytes) -> None:
    line = read_plain_line(raw, 7, {"model": "m", "max_tokens": 9})

    assert (line.custom_id, line.url, json.loads(line.body)) == ("7", *PLAIN[raw])


def test_a_plain_line_may_have_an_id_of_its_own() -> None:
    assert read_plain_line(b'{"custom_id": "x", "prompt": "Hi"}', 7, {"model": "m"}).custom_id == "x"


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b'{"prompt": "Hi"', "invalid_json_line", None),
        (b'{"text": "Hi"}', "invalid_request", "prompt"),
        (b'{"prompt": "Hi", "custom_id": {"a": 1}}', "invalid_request", "custom_id"),
        (b'{"prompt": "Hi", "custom_id": "%s"}' % (b"x" * 513), "invalid_request", "custom_id"),
        (b"\xff", "invalid_request", None),
        (b"Hi", "invalid_request", "body.model"),
    ],
)
def test_a_plain_line_that_is_wrong_says_what(raw: bytes, code: str, param: str | None) -> None:
    with pytest.raises(BadLineError) as error:
        read_plain_line(raw, 1, {})

    assert (error.value.code, error.value.param) == (code, param)
