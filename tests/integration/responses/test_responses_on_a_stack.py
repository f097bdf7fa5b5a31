"""/v1/responses on a real stack: the checks of Open Responses, OpenAI's library, the background, chains, tenants."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx2
import openai
import pydantic
import pytest
import redis
from openai.types.responses import Response, ResponseStreamEvent

from tests.conftest import OwnValkey, Stack, wait_until
from tests.integration.intake.test_security import KEYS, bearer, keys_in_toml
from tests.integration.responses.open_responses import (
    CHECKS,
    HttpCheck,
    events_of,
    failures,
    problems_in_item,
    problems_in_response,
)

ClientOf = Callable[..., openai.OpenAI]
MakeStack = Callable[..., Stack]
ASKED: dict[str, Any] = {"model": "smollm2", "input": "w0 w1 w2 w3", "max_output_tokens": 4}


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
def client_of() -> Iterator[ClientOf]:
    """Make clients of stacks that ask for no keys, or for this one."""
    with contextlib.ExitStack() as clients:

        def make(stack: Stack, key: str = "none") -> openai.OpenAI:
            return clients.enter_context(openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0))

        yield make


@pytest.fixture
def client(stack: Stack, client_of: ClientOf) -> openai.OpenAI:
    return client_of(stack, KEYS["acme"])


def ended(client: openai.OpenAI, response_id: str) -> Response:
    """Return a response once it has ended."""
    wait_until(lambda: client.responses.retrieve(response_id).status not in ("queued", "in_progress"), "it ends")
    return client.responses.retrieve(response_id)


def texts(items: Iterable[Any]) -> list[str]:
    return [item.content[0].text for item in items]


def numbers(events: list[ResponseStreamEvent]) -> list[int]:
    return [event.sequence_number for event in events]


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


def test_a_response_in_the_background_is_followed_after_its_client_left_at_another_intake(
    make_stack: MakeStack, client_of: ClientOf, store: redis.Redis
) -> None:
    stacks = [make_stack(BITLADDER_ECHO__TOKENS_PER_S="20"), make_stack()]
    for stack in stacks:
        stack.intake()
    stacks[0].worker("int4")
    here, there = (client_of(stack) for stack in stacks)
    body = ASKED | {"input": " ".join(f"w{number}" for number in range(30)), "max_output_tokens": 30}

    stream = here.responses.create(**body, background=True, stream=True)
    seen = [next(stream) for _ in range(6)]
    stream.close()
    response_id = seen[0].response.id
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    rest = list(there.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number))

    assert numbers(seen + rest) == list(range(len(seen) + len(rest)))
    text = "".join(event.delta for event in seen + rest if event.type == "response.output_text.delta")
    assert text == body["input"] == here.responses.retrieve(response_id).output_text
    whole = events_of(stacks[1].http.get(f"/v1/responses/{response_id}?stream=true").text)
    assert [event["sequence_number"] for event in whole] == numbers(seen + rest)


def test_a_response_is_cancelled_while_it_waits_and_while_it_runs(make_stack: MakeStack, client_of: ClientOf) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="5")
    stack.intake()
    client = client_of(stack)
    body = ASKED | {"input": "w " * 200, "max_output_tokens": 200, "background": True}

    waiting, deleted = client.responses.create(**body), client.responses.create(**body)
    assert (waiting.status, waiting.background) == ("queued", True)
    assert problems_in_response(stack.http.get(f"/v1/responses/{waiting.id}").json()) == []
    assert client.responses.cancel(waiting.id).status == "cancelled"
    assert client.responses.cancel(waiting.id).status == "cancelled"
    client.responses.delete(deleted.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(deleted.id)

    stack.worker("int4")
    stream = client.responses.create(**body, stream=True)
    response_id = next(stream).response.id
    wait_until(lambda: client.responses.retrieve(response_id).status == "in_progress", "it runs")
    with pytest.raises(openai.ConflictError) as raised:
        client.responses.create(**ASKED, previous_response_id=response_id)
    assert raised.value.code == "response_in_progress"
    assert client.responses.cancel(response_id).status == "cancelled"
    last = list(stream)[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")

    running = client.responses.create(**body)
    wait_until(lambda: client.responses.retrieve(running.id).status == "in_progress", "it runs")
    client.responses.delete(running.id)
    assert stack.http.get(f"/v1/jobs/{running.id}").status_code == 404


def test_a_completion_window_is_a_deadline_in_the_batch_lane(make_stack: MakeStack, client_of: ClientOf) -> None:
    stack = make_stack()
    stack.intake()
    client = client_of(stack)

    queues = {}
    for window in ("soonest", "2h", "8h"):
        made = client.responses.create(**ASKED, background=True, background_options={"completion_window": window})
        queues[window] = stack.http.get(f"/v1/jobs/{made.id}").json()["queue"], made.service_tier

    assert queues == {
        "soonest": ("smollm2:int4:normal", "default"),
        "2h": ("smollm2:int4:batch", "flex"),
        "8h": ("smollm2:int4:batch", "flex"),
    }


def test_a_response_is_continued_after_a_restart_of_everything(
    own_valkey: OwnValkey, make_stack: MakeStack, client_of: ClientOf
) -> None:
    def started() -> tuple[Stack, openai.OpenAI]:
        stack = make_stack(BITLADDER_REDIS__URL=own_valkey.url)
        stack.intake()
        stack.worker("int4")
        return stack, client_of(stack)

    stack, client = started()
    first = client.responses.create(**ASKED)
    stack.kill()
    own_valkey.kill()
    own_valkey.start()
    _, client = started()

    assert client.responses.retrieve(first.id).to_dict() == first.to_dict()
    second = client.responses.create(**ASKED | {"input": "w4"}, previous_response_id=first.id)
    assert texts(client.responses.input_items.list(second.id)) == ["w4", "w0 w1 w2 w3", "w0 w1 w2 w3"]


def test_a_conversation_that_has_become_too_long_says_so(make_stack: MakeStack, client_of: ClientOf) -> None:
    stack = make_stack(BITLADDER_INTAKE__MAX_BODY_BYTES="2000")
    stack.intake()
    stack.worker("int4")
    client = client_of(stack)
    first = client.responses.create(**ASKED | {"input": "w " * 600})

    with pytest.raises(openai.APIStatusError) as raised:
        client.responses.create(**ASKED | {"input": "w " * 600}, previous_response_id=first.id)
    assert (raised.value.status_code, raised.value.param) == (413, "previous_response_id")
