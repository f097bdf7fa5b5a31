"""openai-python over every call that the intake has."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import openai
from checks import MODEL, check, run_checks
from pydantic import BaseModel

client = openai.OpenAI(max_retries=0)
TEXT = "a paper clip holds pages together"


def wait_for(read: Any, states: set[str], timeout_s: float = 60) -> Any:
    """Poll as the SDK's documentation shows it, until the status is terminal."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        seen = read()
        if seen.status in states:
            return seen
        time.sleep(0.1)
    raise AssertionError(f"still {seen.status} after {timeout_s} s")


@check
def models() -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).object == "model"


@check
def completions() -> None:
    answer = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=8)
    assert answer.choices[0].text
    assert answer.usage and answer.usage.completion_tokens
    chunks = list(client.completions.create(model=MODEL, prompt=TEXT, max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == answer.choices[0].text


@check
def chat() -> None:
    messages: Any = [{"role": "user", "content": TEXT}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8)
    assert answer.choices[0].message.content
    usage = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, stream=True, stream_options=usage)
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer.choices[0].message.content
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens


@check
def chat_stream_helper() -> None:
    messages: Any = [{"role": "user", "content": TEXT}]
    with client.chat.completions.stream(model=MODEL, messages=messages, max_tokens=8) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content
    assert "content.delta" in kinds


@check
def chat_parse() -> None:
    class City(BaseModel):
        name: str

    answer = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Name a city."}], response_format=City, max_tokens=64
    )
    assert isinstance(answer.choices[0].message.parsed, City)


@check
def chat_tools() -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Weather in Paris?"}],
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=64,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls and "city" in json.loads(calls[0].function.arguments)


@check
def an_image_is_passed_on() -> None:
    pixel = (
        "data:image/png;base64,"
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    content: Any = [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": pixel}}]
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}], max_tokens=8)
    except openai.BadRequestError as error:  # the example's model reads text alone, and its engine says so
        assert "multimodal" in error.message


@check
def embeddings() -> None:
    answer = client.embeddings.create(model=MODEL, input=[TEXT, "another"])
    assert [entry.index for entry in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0
    numbers = client.embeddings.create(model=MODEL, input=TEXT, encoding_format="float")
    assert len(numbers.data[0].embedding) == len(answer.data[0].embedding)
    assert len(client.embeddings.create(model=MODEL, input=[[1, 2, 3], [4]]).data) == 2


@check
def responses() -> None:
    answer = client.responses.create(model=MODEL, input=TEXT, max_output_tokens=16)
    assert answer.status in ("completed", "incomplete")
    assert answer.output_text
    assert answer.usage and answer.usage.output_tokens
    assert client.responses.retrieve(answer.id).output_text == answer.output_text


@check
def responses_stream() -> None:
    events = list(client.responses.create(model=MODEL, input=TEXT, max_output_tokens=16, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text


@check
def responses_stream_helper() -> None:
    with client.responses.stream(model=MODEL, input=TEXT, max_output_tokens=16) as stream:
        assert any(event.type == "response.output_text.delta" for event in stream)
        assert stream.get_final_response().output_text


@check
def responses_in_the_background() -> None:
    answer = client.responses.create(model=MODEL, input=TEXT, max_output_tokens=16, background=True)
    assert answer.status in ("queued", "in_progress")
    ended = wait_for(lambda: client.responses.retrieve(answer.id), {"completed", "incomplete"})
    assert ended.output_text
    assert ended.background


@check
def responses_stream_resumed() -> None:
    stream = client.responses.create(model=MODEL, input=TEXT * 4, max_output_tokens=32, background=True, stream=True)
    begun = []
    for event in stream:
        begun.append(event)
        if event.sequence_number >= 4:
            break
    stream.close()
    response_id = begun[0].response.id
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=begun[-1].sequence_number))
    numbers = [event.sequence_number for event in [*begun, *rest]]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type in ("response.completed", "response.incomplete")


@check
def responses_follow_each_other() -> None:
    first = client.responses.create(model=MODEL, input="one two three", max_output_tokens=8)
    second = client.responses.create(model=MODEL, input="four", previous_response_id=first.id, max_output_tokens=8)
    assert second.previous_response_id == first.id
    assert second.usage and first.usage and second.usage.input_tokens > first.usage.input_tokens
    items = client.responses.input_items.list(second.id)
    assert items.data


@check
def responses_cancelled_and_deleted() -> None:
    answer = client.responses.create(model=MODEL, input=TEXT, max_output_tokens=2000, background=True)
    cancelled = client.responses.cancel(answer.id)
    assert cancelled.status in ("cancelled", "completed", "incomplete")
    client.responses.delete(answer.id)
    try:
        client.responses.retrieve(answer.id)
    except openai.NotFoundError:
        return
    raise AssertionError("a deleted response was found")


@check
def responses_parse() -> None:
    class City(BaseModel):
        name: str

    answer = client.responses.parse(model=MODEL, input="Name a city.", text_format=City, max_output_tokens=64)
    assert isinstance(answer.output_parsed, City)


def batch_of(lines: list[dict[str, Any]], endpoint: str = "/v1/chat/completions") -> Any:
    data = "\n".join(json.dumps(line) for line in lines).encode()
    uploaded = client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h")


def line_of(number: int, **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{TEXT} {number}"}], "max_tokens": 4}
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body | fields,
    }


@check
def files() -> None:
    data = json.dumps(line_of(0)).encode()
    uploaded = client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    assert uploaded.bytes == len(data)
    assert uploaded.filename == "in.jsonl"
    assert uploaded.id in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.retrieve(uploaded.id).purpose == "batch"
    assert client.files.content(uploaded.id).read() == data
    assert client.files.delete(uploaded.id).deleted
    try:
        client.files.retrieve(uploaded.id)
    except openai.NotFoundError:
        return
    raise AssertionError("a deleted file was found")


@check
def batches() -> None:
    batch = batch_of([line_of(number) for number in range(20)] + [line_of(20, model="no-such-model")])
    assert batch.id in [other.id for other in client.batches.list()]
    ended = wait_for(lambda: client.batches.retrieve(batch.id), {"completed", "failed", "expired", "cancelled"})
    if ended.status == "failed":  # an unknown model may fail the file or its line alone; both are documented by it
        assert ended.errors and ended.errors.data and ended.errors.data[0].line == 21
        ended = wait_for(
            lambda i=batch_of([line_of(n) for n in range(20)]).id: client.batches.retrieve(i), {"completed"}
        )
    assert ended.request_counts and ended.request_counts.completed == 20
    answers = [json.loads(line) for line in client.files.content(ended.output_file_id).text.splitlines()]
    assert {answer["custom_id"] for answer in answers} == {f"line-{number}" for number in range(20)}
    assert all(answer["response"]["status_code"] == 200 and answer["error"] is None for answer in answers)
    assert all(answer["response"]["body"]["choices"] for answer in answers)


@check
def batches_cancelled() -> None:
    batch = batch_of([line_of(number, max_tokens=200) for number in range(200)])
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    wait_for(lambda: client.batches.retrieve(batch.id), {"cancelled"})


@check
def batches_refused() -> None:
    batch = batch_of([line_of(0), line_of(0)])
    ended = wait_for(lambda: client.batches.retrieve(batch.id), {"failed"})
    assert ended.errors and ended.errors.data and ended.errors.data[0].line == 2


@check
def webhook_endpoints() -> None:
    resource = client.webhooks
    made: Any = resource.create(
        url="https://example.com/hook", event_types=["response.completed", "batch.completed"], name="judge"
    )
    assert made.id in [endpoint.id for endpoint in resource.list()]
    assert resource.retrieve(made.id).url == "https://example.com/hook"
    resource.delete(made.id)


@check
def errors_have_their_classes() -> None:
    for call, kind in (
        (lambda: client.completions.create(model="no-such-model", prompt="x"), openai.NotFoundError),
        (lambda: client.completions.create(model=MODEL, prompt="x", max_tokens=-1), openai.BadRequestError),
        (lambda: client.responses.retrieve("resp_unknown"), openai.NotFoundError),
        (lambda: client.batches.retrieve("batch_unknown"), openai.NotFoundError),
        (lambda: client.files.retrieve("file-unknown"), openai.NotFoundError),
        (lambda: client.files.create(file=("a", b"x"), purpose="fine-tune"), openai.BadRequestError),
    ):
        try:
            call()
        except kind as error:
            assert error.message
            assert error.request_id
        else:
            raise AssertionError(f"no {kind.__name__}")


@check
def idempotent() -> None:
    headers = {"Idempotency-Key": f"judge-{time.time_ns()}"}
    first = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=4, extra_headers=headers)
    again = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=4, extra_headers=headers)
    assert first.id == again.id
    try:
        client.completions.create(model=MODEL, prompt="other", max_tokens=4, extra_headers=headers)
    except openai.UnprocessableEntityError:
        return
    raise AssertionError("another body was taken under one key")


@check
async def awaited_by_the_async_client() -> None:
    async with openai.AsyncOpenAI(max_retries=0) as asynchronous:
        answer = await asynchronous.responses.create(model=MODEL, input=TEXT, max_output_tokens=8)
        assert answer.output_text
        stream = await asynchronous.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": TEXT}], max_tokens=8, stream=True
        )
        assert [chunk async for chunk in stream]


if __name__ == "__main__":
    run_checks()
