"""bitladder/routing/body.py: what of a body is read, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.routing.body import endpoint_for, max_tokens, prefix_of, prompt_bytes, read_body

DATA = {"image_url": "data:image/png;base64,AAAA"}
PICTURE = {"type": "image_url", "image_url": {"url": DATA["image_url"]}}


@pytest.mark.parametrize("extra", [b'"\xff": 1', b'"user": "\xed\xa0\x80"', b'"user": ["\x80"]'])
def test_a_body_must_be_utf8_also_in_fields_that_routing_does_not_read(extra: bytes) -> None:
    with pytest.raises(RequestError, match="JSON"):
        read_body(Endpoint.COMPLETIONS, b'{"model": "m", "prompt": "x", %s}' % extra)


# A body of each route as its users write it, and the text of it that is scored.
PROMPTS: tuple[tuple[Endpoint, dict[str, Any], str], ...] = (
    (Endpoint.COMPLETIONS, {"prompt": "a"}, "a"),
    (Endpoint.COMPLETIONS, {"prompt": ["a", "b"]}, "a\nb"),
    (Endpoint.COMPLETIONS, {"prompt": [[1, 2], [3]]}, "[1, 2]\n[3]"),
    (Endpoint.CHAT, {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": None}]}, "a"),
    (Endpoint.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}]}, "a"),
    (Endpoint.RESPONSES, {"instructions": "be", "input": "a"}, "be\na"),
    (
        Endpoint.RESPONSES,
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", **DATA}]},
                {"type": "function_call_output", "call_id": "c", "output": "b"},
            ]
        },
        "a\nb",
    ),
    (
        Endpoint.MESSAGES,
        {"system": [{"type": "text", "text": "be"}], "messages": [{"role": "user", "content": "a"}]},
        "be\na",
    ),
    (Endpoint.COUNT_TOKENS, {"messages": [{"role": "user", "content": "a"}]}, "a"),
    (Endpoint.EMBEDDINGS, {"input": ["a", "b"]}, "a\nb"),
    (Endpoint.EMBEDDINGS, {"messages": [[{"role": "user", "content": ["a"]}]]}, "a"),
    (Endpoint.COHERE_EMBED, {"images": ["data:image/png;base64,AAAA"]}, ""),
    (Endpoint.COHERE_EMBED, {"inputs": [{"content": [{"type": "text", "text": "a"}]}]}, "a"),
    (Endpoint.SCORE, {"text_1": "a", "text_2": ["b"]}, "a\nb"),
    (Endpoint.SCORE_V1, {"queries": "a", "documents": "b"}, "a\nb"),
    (Endpoint.RERANK, {"query": "a", "documents": ["b"]}, "a\nb"),
    (Endpoint.POOLING, {"data": {"text": "a"}}, "a"),
    (Endpoint.CLASSIFY, {"input": "a"}, "a"),
    (Endpoint.TOKENIZE, {"messages": [{"role": "user", "content": "a"}]}, "a"),
    (Endpoint.DETOKENIZE, {"tokens": [1, 2]}, "1\n2"),
    (Endpoint.VERSION, {}, ""),
)


@pytest.mark.parametrize(("endpoint", "fields", "text"), PROMPTS)
def test_the_text_of_every_prompt_is_scored_and_no_picture(
    endpoint: Endpoint, fields: dict[str, Any], text: str
) -> None:
    body = read_body(endpoint, msgspec.json.encode({"model": "m"} | fields))

    assert prompt_bytes(body).decode() == text


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in Endpoint if endpoint.row.prompt])
def test_a_body_without_a_prompt_is_refused_by_the_name_of_its_field(endpoint: Endpoint) -> None:
    with pytest.raises(RequestError) as caught:
        read_body(endpoint, b'{"model": "m"}')

    assert caught.value.param in endpoint.row.prompt
    assert str(caught.value.param) in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "limits", "expected"),
    [
        (Endpoint.CHAT, {"max_tokens": 5, "max_completion_tokens": 3}, 3),
        (Endpoint.RESPONSES, {"max_output_tokens": 7, "max_tokens": 5}, 7),
        (Endpoint.MESSAGES, {"max_tokens": 5}, 5),
        (Endpoint.COMPLETIONS, {"max_tokens": "x"}, None),
        (Endpoint.EMBEDDINGS, {"max_tokens": 5}, 0),
        (Endpoint.RERANK, {}, 0),
    ],
)
def test_what_generates_nothing_has_no_output(endpoint: Endpoint, limits: dict[str, Any], expected: int | None) -> None:
    fields = {name: [{"role": "user"}] if name == "messages" else "x" for name in endpoint.row.prompt}

    assert max_tokens(read_body(endpoint, msgspec.json.encode({"model": "m"} | fields | limits))) == expected


def test_only_what_can_stream_does() -> None:
    raw = b'{"model": "m", "input": "x", "stream": true}'

    assert read_body(Endpoint.RESPONSES, raw).is_streamed
    assert not read_body(Endpoint.EMBEDDINGS, raw).is_streamed


def test_a_body_that_two_routes_take_must_name_its_own() -> None:
    assert endpoint_for({"messages", "input"}) is Endpoint.CHAT
    assert endpoint_for({"prompt"}) is endpoint_for({}) is Endpoint.COMPLETIONS
    with pytest.raises(RequestError, match=r"/v1/responses or for /v1/embeddings"):
        endpoint_for({"input"})


@pytest.mark.parametrize(
    "named",
    [
        {"prompt_cache_key": "k"},
        {"continuation_id": "k"},
        {"background_options": {"continuation_id": "k", "completion_window": "2h"}},
    ],
)
def test_a_name_for_what_requests_share_counts_before_their_prompt(named: dict[str, Any]) -> None:
    def prefix(prompt: str, tenant: str = "a", **more: object) -> str:
        raw = msgspec.json.encode({"model": "m", "prompt": prompt} | more)
        return prefix_of(read_body(Endpoint.COMPLETIONS, raw), raw, tenant, 8)

    assert prefix("one", **named) == prefix("another prompt", **named) != ""
    assert prefix("one", "b", **named) != prefix("one", **named)
    assert prefix("one") == ""
    assert prefix("another prompt", background_options=None) == prefix("another prompt, longer") != ""
