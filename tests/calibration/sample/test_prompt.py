"""What counts as a prompt in a line of a log."""

from __future__ import annotations

import json

import pytest

from bitladder.routing.envelope import Envelope
from calibration.sample.prompt import BadEntry, Prompt, read_prompts


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"messages": [], "prompt": "Why?"}', [Prompt("Why?")]),
        (b'{"messages": [{"role": "user", "content": null}], "text": "Why?"}', [Prompt("Why?")]),
        (b'{"messages": null, "prompt": " ", "text": "Why?"}', [Prompt("Why?")]),
        (b'{"prompt": [], "text": "Why?"}', [Prompt("Why?")]),
        (b'{"messages": [{"role": "user", "content": "Hi"}], "prompt": "Why?"}', [Prompt("Hi", is_chat=True)]),
        (b'{"prompt": "Why?", "tier": "int8"}', [Prompt("Why?", tier="int8")]),
        (
            b'{"prompt": "Why?", "priority": 9, "max_latency_ms": 900, "lane": "urgent"}',
            [Prompt("Why?", envelope=Envelope(priority=9, max_latency_ms=900))],
        ),
        (b'{"prompt": "Why?", "priority": "high"}', [Prompt("Why?")]),
        (b'{"prompt": ["One", "Two"]}', [Prompt("One"), Prompt("Two")]),
        (b'{"text": "Why?"}', [Prompt("Why?")]),
        (b'{"prompt": null, "text": "Why?"}', [Prompt("Why?")]),
        (b'{"text": null, "prompt": "Why?"}', [Prompt("Why?")]),
        (b'[{"prompt": "One"}, {"prompt": "Two"}]', [Prompt("One"), Prompt("Two")]),
        (
            b'{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": '
            b'[{"type": "text", "text": "Why?"}, {"type": "image_url"}]}]}',
            [Prompt("Be kind.\nWhy?", turns=2, is_chat=True)],
        ),
    ],
)
def test_prompts_texts_and_messages_are_read(line: bytes, found: list[Prompt]) -> None:
    assert read_prompts(json.loads(line)) == found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'"a text"', "not an object"),
        (b'{"question": "Why?"}', "no prompt, messages or text"),
        (b'{"prompt": [1, 2, 3]}', "prompt is no text"),
        (b'{"prompt": "  "}', "empty"),
        (b'{"prompt": []}', "empty"),
        (b'{"messages": [7]}', "empty"),
        (b'{"messages": []}', "empty"),
        (b'{"messages": "Why?"}', "no prompt, messages or text"),
    ],
)
def test_what_is_no_prompt_says_why(line: bytes, reason: str) -> None:
    found = read_prompts(json.loads(line))

    assert {bad.reason if isinstance(bad, BadEntry) else bad for bad in found} == {reason}


@pytest.mark.parametrize(
    ("line", "field", "group"),
    [
        ('{"prompt": "a", "route": "sql"}', "route", "sql"),
        ('{"prompt": "a", "metadata": {"tenant": 7}}', "metadata.tenant", "7"),
        ('{"prompt": "a", "metadata.tenant": "b", "metadata": {"tenant": "c"}}', "metadata.tenant", "b"),
        ('{"prompt": "a", "route": "' + "x" * 1000 + '"}', "route", "x" * 40),
        ('{"prompt": "a", "route": ["sql"]}', "route", ""),
        ('{"prompt": "a", "metadata": "sql"}', "metadata.tenant", ""),
        ('{"prompt": "a"}', "route", ""),
        ('{"prompt": "a", "": "sql"}', "", ""),
    ],
)
def test_the_group_of_a_record_is_the_value_of_a_field(line: str, field: str, group: str) -> None:
    (prompt,) = read_prompts(json.loads(line), field)

    assert isinstance(prompt, Prompt)
    assert prompt.group == group
