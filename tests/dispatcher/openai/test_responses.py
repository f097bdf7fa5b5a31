"""What a response says and which events it has, whatever its engine leaves out: no I/O."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bitladder.contract import Outcome, Request, ResponseOptions, State
from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.accept import Incoming, accept
from dispatcher.openai.responses.create_options import NotImplementedHereError, engine_body, read_options
from dispatcher.openai.responses.event_numbers import EventNumbers
from dispatcher.openai.responses.record import StoredResponse, is_response_id, new_job_id
from dispatcher.openai.responses.stored import page_of
from tests.conftest import make_settings
from tests.integration.responses.open_responses import REQUIRED, problems_in_event, problems_in_response

BODY = {"model": "smollm2", "input": "hello", "instructions": "be brief", "temperature": 0.0}
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}


def stored(body: dict[str, Any] = BODY, queue: str = "smollm2:int4:normal", **options: Any) -> StoredResponse:  # noqa: ANN401
    raw = msgspec.Raw(msgspec.json.encode(body))
    request = Request(body=raw, endpoint=Endpoint.RESPONSES, response=ResponseOptions(**options))
    return StoredResponse(new_job_id(is_stored=True), request, queue)


def finished(**engine: Any) -> Outcome:  # noqa: ANN401  (an engine's answer)
    return Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(msgspec.json.encode(engine)))


def events_in(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]


def chunk(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


def test_an_answer_that_says_almost_nothing_becomes_a_whole_response() -> None:
    response = stored().ended(finished(output=[MESSAGE], usage={"input_tokens": 3, "output_tokens": 1}))

    assert problems_in_response(response) == []
    assert (response["status"], response["instructions"], response["temperature"]) == ("completed", "be brief", 0.0)
    assert response["usage"]["total_tokens"] == 4
    assert response["completed_at"] >= response["created_at"]


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (None, "queued", None),
        (
            finished(status="incomplete", output=[], incomplete_details={"reason": "max_output_tokens"}),
            "incomplete",
            None,
        ),
        (Outcome(state=State.CANCELLED, status=409, code="cancelled"), "cancelled", None),
        (
            Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error="too late"),
            "failed",
            "server_error",
        ),
        (Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke"), "failed", "server_error"),
        (Outcome(state=State.FAILED, status=400, code="refused_by_engine", error="no"), "failed", "invalid_prompt"),
    ],
)
def test_every_end_of_a_job_is_a_status_of_its_response(outcome: Outcome | None, status: str, code: str | None) -> None:
    response = stored(background=True).of_state(outcome.state if outcome else State.QUEUED, outcome)

    assert problems_in_response(response) == []
    assert response["status"] == status
    assert (response["error"] or {}).get("code") == code
    assert response["completed_at"] is None


def test_all_required_fields_are_there_whatever_an_engine_sets_to_null() -> None:
    response = stored().ended(
        finished(**dict.fromkeys(REQUIRED) | {"output": [{"type": "function_call", "name": "f"}]})
    )

    assert problems_in_response(response) == []


def test_the_service_tier_is_the_one_that_was_used() -> None:
    assert stored(service_tier="fast", queue="smollm2:int4:urgent").ended(finished())["service_tier"] == "priority"
    assert stored(queue="smollm2:int4:batch").ended(finished())["service_tier"] == "flex"


def test_events_have_the_same_numbers_wherever_they_are_read_from() -> None:
    response = stored(background=True)
    delta = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": "hi"}
    item = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": "hi"}}
    chunks = [
        chunk({"type": "response.created", "response": {}}, {"type": "response.in_progress", "response": {}}),
        chunk(delta | {"sequence_number": 77, "logprobs": None}, item),
        chunk({"type": "response.completed", "response": {"status": "incomplete", "output": [MESSAGE]}}),
    ]

    def read(after: int) -> list[dict[str, Any]]:
        numbers = EventNumbers(response, after)
        data = [numbers.first(), *map(numbers.of_chunk, chunks), numbers.last(finished())]
        assert data[-1].endswith(b"data: [DONE]\n\n")
        return events_in(b"".join(data))

    events = read(-1)
    assert [problem for event in events for problem in problems_in_event(event)] == []
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3, 4, 5]
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "queued", "in_progress", "output_text.delta", "output_item.done", "incomplete",
    ]  # fmt: skip
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "hi"
    assert all(read(after) == events[after + 1 :] for after in range(6))


def test_what_is_for_the_intake_does_not_reach_the_engine() -> None:
    ours = {
        "store": True,
        "background": True,
        "background_options": {"completion_window": "8h", "continuation_id": "c"},
    }
    sent = msgspec.json.encode(BODY | ours)
    options = read_options(sent)

    assert json.loads(engine_body(sent, options, None)) == BODY
    assert (options.lane, options.deadline_ms, options.continuation_id) == (Lane.BATCH, 28_800_000, "c")
    earlier = json.loads(engine_body(sent, options, [MESSAGE]))["input"]
    assert earlier == [MESSAGE, {"type": "message", "role": "user", "content": "hello"}]
    plain = msgspec.json.encode(BODY)
    assert engine_body(plain, read_options(plain), None) is plain


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True, "store": False}, "background"),
        ({"background_options": {"completion_window": "2h"}}, "background_options"),
        ({"background": True, "background_options": {"completion_window": "3h"}},
         "background_options.completion_window"),
        ({"background": True, "stream": True, "background_options": {"completion_window": "2h"}},
         "background_options.completion_window"),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"store": "yes"}, "store"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        read_options(msgspec.json.encode(BODY | fields))
    assert raised.value.param == param


@pytest.mark.parametrize("sent", [5, {"role": "user"}, True])
def test_an_input_that_is_neither_a_text_nor_a_list_is_not_dropped_behind_earlier_items(sent: object) -> None:
    body = msgspec.json.encode(BODY | {"input": sent})

    with pytest.raises(RequestError, match="input must be a text or a list of items, got"):
        engine_body(body, read_options(body), [MESSAGE])


def test_a_conversation_is_refused_by_its_name() -> None:
    with pytest.raises(NotImplementedHereError, match="previous_response_id"):
        read_options(msgspec.json.encode(BODY | {"conversation": "conv_1"}))


def test_pages_of_items_follow_each_other() -> None:
    items = [{"id": f"i{number}"} for number in range(5)]

    first = page_of(items, after="", limit=3)
    assert ([item["id"] for item in first.data], first.has_more) == (["i0", "i1", "i2"], True)
    rest = page_of(items, after=str(first.last_id), limit=3)
    assert ([item["id"] for item in rest.data], rest.has_more, rest.first_id) == (["i3", "i4"], False, "i3")
    assert page_of([], after="", limit=3).last_id is None
    with pytest.raises(RequestError, match="after"):
        page_of(items, after="elsewhere", limit=3)


def test_an_id_that_is_stored_differs_from_one_that_is_not() -> None:
    assert is_response_id(new_job_id(is_stored=True))
    assert not is_response_id(new_job_id(is_stored=False))


def test_requests_that_continue_each_other_share_a_prefix_with_their_tenant_alone() -> None:
    settings = make_settings("redis://127.0.0.1:1/0", queue__prefix_bytes=64)

    def prefix(text: str, tenant: str, continuation_id: str) -> str:
        body = msgspec.json.encode({"model": "smollm2", "input": text})
        incoming = Incoming(
            endpoint=Endpoint.RESPONSES,
            body=body,
            headers={},
            request_id="t",
            tenant=tenant,
            continuation_id=continuation_id,
        )
        return accept(incoming, settings).submission.request.prefix

    assert prefix("hello", "acme", "trip") == prefix("another", "acme", "trip") != ""
    assert len({prefix("hello", "acme", "trip"), prefix("hello", "globex", "trip"), prefix("hello", "acme", "x")}) == 3
    assert prefix("hello", "acme", "") == ""


def test_a_completion_window_ends_no_later_than_the_clients_own_deadline() -> None:
    settings = make_settings("redis://127.0.0.1:1/0")

    def deadline_ms(headers: dict[str, str], window_ms: int | None) -> int | None:
        body = msgspec.json.encode(BODY)
        incoming = Incoming(
            endpoint=Endpoint.RESPONSES, body=body, headers=headers, request_id="t", deadline_ms=window_ms
        )
        return accept(incoming, settings).submission.deadline_ms

    assert deadline_ms({}, 7_200_000) == 7_200_000
    assert deadline_ms({"x-deadline-ms": "1000"}, 7_200_000) == 1000
    assert deadline_ms({}, None) is None
