"""/v1/responses where workers die, clients leave, and all is started again: each test has processes of its own."""

from __future__ import annotations

import openai
import pytest
import redis

from tests.conftest import OwnValkey, Stack, wait_until
from tests.integration.responses.asking import ASKED, ClientOf, MakeStack, numbers, texts
from tests.integration.responses.open_responses import (
    events_of,
    problems_in_response,
)


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


@pytest.mark.parametrize(
    "lease",
    [{"BITLADDER_QUEUE__LEASE_S": "1"}, pytest.param({}, marks=pytest.mark.long)],
    ids=["lease of 1 s", "lease that ships"],
)
def test_events_of_a_lost_execution_are_never_mixed_with_those_of_the_next_one(
    lease: dict[str, str], make_stack: MakeStack, client_of: ClientOf
) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="5", **lease)
    stack.intake()
    worker = stack.worker("int4")
    client = client_of(stack)
    body = ASKED | {"input": " ".join(f"w{number}" for number in range(60)), "max_output_tokens": 60}

    stream = client.responses.create(**body, background=True, stream=True)
    seen = [next(stream) for _ in range(8)]
    worker.kill()
    stack.environment["BITLADDER_ECHO__TOKENS_PER_S"] = "500"
    stack.start("worker", "--tier", "int4")
    last = list(stream)[-1]

    assert (last.type, last.code) == ("error", "stream_restarted")
    with pytest.raises(openai.ConflictError) as raised:
        client.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number)
    assert raised.value.code == "stream_restarted"
    whole = list(client.responses.retrieve(seen[0].response.id, stream=True))
    assert "".join(event.delta for event in whole if event.type == "response.output_text.delta") == body["input"]
    assert numbers(whole) == list(range(len(whole)))


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
