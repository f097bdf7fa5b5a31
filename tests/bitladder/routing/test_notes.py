"""bitladder/routing/notes.py: what a client may note on its job."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.routing.body import read_body
from bitladder.routing.notes import labels_of

FULL = {f"{number:064}": "x" * 512 for number in range(16)}


def labels(metadata: Any, tags: str | None = None, endpoint: Endpoint = Endpoint.COMPLETIONS) -> Any:  # noqa: ANN401
    prompt = {"messages": [{"role": "user"}]} if endpoint.row.is_chat else {"prompt": "x"}
    body = {"model": "m", "metadata": metadata} | prompt
    noted = labels_of(read_body(endpoint, msgspec.json.encode(body)), tags)
    return msgspec.json.decode(noted) if noted else None


@pytest.mark.parametrize(
    ("metadata", "tags", "noted"),
    [
        (None, None, None),
        ({}, " , ", None),
        ({"a": "b", "n": 1.5, "is": True}, None, {"metadata": {"a": "b", "n": "1.5", "is": "true"}}),
        (None, "nightly, eu,nightly", {"tags": ["nightly", "eu"]}),
        (FULL, ",".join(f"{number:064}" for number in range(16)), {"metadata": FULL, "tags": [*FULL]}),
    ],
)
def test_texts_are_kept_up_to_openais_limits(metadata: Any, tags: str | None, noted: Any) -> None:  # noqa: ANN401
    assert labels(metadata, tags) == noted


@pytest.mark.parametrize(
    ("metadata", "tags", "param", "message"),
    [
        ("a", None, "metadata", "object"),
        ([1], None, "metadata", "object"),
        (FULL | {"a": "b"}, None, "metadata", "at most 16 pairs, got 17"),
        ({"n" * 65: "a"}, None, "metadata", "at most 64 characters, got 65"),
        ({"a": "x" * 513}, None, "metadata.a", "at most 512 characters, got 513"),
        ({"a": {}}, None, "metadata.a", "must be a text, got dict"),
        ({"a": None}, None, "metadata.a", "must be a text, got NoneType"),
        (None, ",".join(map(str, range(17))), "X-Tags", "at most 16 tags, got 17"),
        (None, "t" * 65, "X-Tags", "at most 64"),
        (None, "\xe9", "X-Tags", "ASCII"),
    ],
)
def test_what_is_too_much_is_named(metadata: Any, tags: str | None, param: str, message: str) -> None:  # noqa: ANN401
    with pytest.raises(RequestError, match=message) as caught:
        labels(metadata, tags)

    assert caught.value.param == param


def test_anthropics_metadata_may_be_null() -> None:
    assert labels({"user_id": None}, endpoint=Endpoint.MESSAGES) is None
