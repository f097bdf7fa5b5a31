"""/v1/responses on a real stack: the checks of Open Responses, OpenAI's library, chains, tenants."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pydantic
import pytest
import redis

from tests.conftest import Stack
from tests.integration.intake.test_security import KEYS, bearer, keys_in_toml
from tests.integration.responses.asking import ASKED, ClientOf, numbers, texts
from tests.integration.responses.open_responses import (
    CHECKS,
    HttpCheck,
    failures,
    problems_in_item,
)


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    stack = Stack(redis_url, BITLADDER_AUTH__KEYS=keys_in_toml(), BITLADDER_ECHO__MULTIMODAL="true")
    redis.Redis.from_url(redis_url).flushall()
    stack.http.headers.update(bearer("ops"))
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


@pytest.fixture
def client(stack: Stack, client_of: ClientOf) -> openai.OpenAI:
    return client_of(stack, KEYS["acme"])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name.replace(" ", "_"))
def test_a_check_of_open_responses_passes(stack: Stack, check: HttpCheck) -> None:
    assert failures(stack.http, check, max_output_tokens=16) == []


def test_a_response_is_continued_listed_and_deleted(client: openai.OpenAI) -> None:
    first = client.responses.create(**ASKED, metadata={"trip": "1"})
    second = client.responses.create(**ASKED | {"input": "w4"}, previous_response_id=first.id)
    page = client.responses.input_items.list(second.id, limit=2, order="asc")
    items = list(page)  # all pages

    assert (first.status, first.output_text, first.metadata) == ("completed", "w0 w1 w2 w3", {"trip": "1"})
    assert client.responses.retrieve(second.id).to_dict() == second.to_dict()
    assert second.previous_response_id == first.id
    assert page.has_next_page()
    assert [problem for item in items for problem in problems_in_item(item.to_dict())] == []
    assert texts(items) == ["w0 w1 w2 w3", "w0 w1 w2 w3", "w4"]
    assert [item.id for item in client.responses.input_items.list(second.id)] == [item.id for item in items][::-1]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    third = client.responses.create(**ASKED | {"input": "w5"}, previous_response_id=second.id)
    assert (
        len(list(client.responses.input_items.list(third.id))) == 5
    )  # what the deleted one said is part of the second


@pytest.mark.parametrize("query", ["?stream=yes", "?starting_after=1.5", "?starting_after=-1", "/input_items?limit=0"])
def test_a_wrong_value_in_a_query_is_refused_with_what_is_expected(client: openai.OpenAI, query: str) -> None:
    response = client.responses.create(model="smollm2", input="aa bb", max_output_tokens=2)

    with pytest.raises(openai.BadRequestError, match=r"must be (true or false|a whole number from \d+ to \d+), got"):
        client.get(f"/responses/{response.id}{query}", cast_to=object)


def test_an_answer_in_a_form_is_parsed(client: openai.OpenAI) -> None:
    class Place(pydantic.BaseModel):
        name: str
        people: int

    parsed = client.responses.parse(model="smollm2", input="Name a place.", text_format=Place)

    assert isinstance(parsed.output_parsed, Place)


def test_a_response_that_is_not_stored_is_found_by_nobody(client: openai.OpenAI) -> None:
    response = client.responses.create(**ASKED, store=False)

    assert (response.status, response.id[:5]) == ("completed", "resp_")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(**ASKED, previous_response_id=response.id)
    assert raised.value.code == "previous_response_not_found"


def test_another_tenant_sees_nothing_of_a_response(stack: Stack, client: openai.OpenAI) -> None:
    response = client.responses.create(**ASKED)
    path, other = f"{stack.url}/v1/responses/{response.id}", bearer("globex")

    answers = [
        httpx2.get(path, headers=other),
        httpx2.get(f"{path}?stream=true", headers=other),
        httpx2.get(f"{path}/input_items", headers=other),
        httpx2.post(f"{path}/cancel", headers=other),
        httpx2.delete(path, headers=other),
    ]
    continued = httpx2.post(
        f"{stack.url}/v1/responses", headers=other, json=ASKED | {"previous_response_id": response.id}
    )

    assert [answer.status_code for answer in answers] == [404] * 5
    assert (continued.status_code, continued.json()["error"]["code"]) == (400, "previous_response_not_found")
    assert client.responses.retrieve(response.id).status == "completed"


def test_a_part_of_the_api_that_is_not_there_says_so_by_its_name(client: openai.OpenAI) -> None:
    for call in (
        lambda: client.conversations.create(),
        lambda: client.conversations.items.list("conv_1"),
        lambda: client.responses.input_tokens.count(model="smollm2", input="x"),
        lambda: client.responses.create(**ASKED, conversation="conv_1"),
    ):
        with pytest.raises(openai.InternalServerError) as raised:
            call()
        assert (raised.value.status_code, raised.value.code) == (501, "not_implemented")
        assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_streamed_response_ends_with_what_is_stored(client: openai.OpenAI) -> None:
    events = list(client.responses.create(**ASKED, stream=True))

    assert numbers(events) == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert events[-1].type == "response.completed"
    final = events[-1].response
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text
    assert client.responses.retrieve(final.id).to_dict() == final.to_dict()
    again = list(client.responses.retrieve(final.id, stream=True, starting_after=events[2].sequence_number))
    assert [event.to_dict() for event in again] == [event.to_dict() for event in events[3:]]


def test_a_repeat_with_an_idempotency_key_gets_the_same_answer(client: openai.OpenAI) -> None:
    def key(name: str) -> dict[str, str]:
        return {"Idempotency-Key": name}

    first, again = (client.responses.create(**ASKED, background=True, extra_headers=key("one")) for _ in range(2))
    events, repeated = (list(client.responses.create(**ASKED, stream=True, extra_headers=key("two"))) for _ in range(2))

    assert first.id == again.id
    assert [event.to_dict() for event in repeated] == [event.to_dict() for event in events]
    with pytest.raises(openai.UnprocessableEntityError):  # the engine's body would be the same
        client.responses.create(**ASKED, extra_headers=key("one"))
