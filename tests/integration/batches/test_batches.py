"""Batches over HTTP, as OpenAI's library uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
import redis
from openai.types import Batch

from tests.conftest import Stack, wait_until
from tests.integration.webhooks.receiver import SECRET, receiving

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDS = ("completed", "failed", "expired", "cancelled")


def line(custom_id: str, text: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401  (any field)
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": URL,
        "body": {"model": "smollm2:int4", "messages": messages, "max_tokens": 8} | body,
    }


def lines_of(count: int) -> list[dict[str, Any]]:
    return [line(f"c{n}", f"w{n} and more") for n in range(count)]


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


class BatchUser:
    """Somebody with OpenAI's library."""

    def __init__(self, stack: Stack) -> None:
        self.client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)

    def create(self, lines: list[dict[str, Any]], window: Any = "24h", **more: Any) -> Batch:  # noqa: ANN401
        file = self.client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        return self.client.batches.create(input_file_id=file.id, endpoint=URL, completion_window=window, **more)

    def wait(self, batch_id: str, *statuses: str) -> Batch:
        seen: list[Batch] = []

        def is_there() -> bool:
            seen[:] = [self.client.batches.retrieve(batch_id)]
            return seen[0].status in (statuses or ENDS)

        wait_until(is_there, f"the batch is {statuses or ENDS}", 60)
        return seen[0]

    def lines(self, file_id: str | None) -> dict[str, Any]:
        """Return a file's lines by custom_id, each of which is there once."""
        text = self.client.files.content(file_id).text if file_id else ""
        read = [json.loads(each) for each in text.splitlines()]
        by_id = {each["custom_id"]: each for each in read}
        assert len(by_id) == len(read)
        return by_id


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        redis_url,
        BITLADDER_FILES__STORE=str(tmp_path_factory.mktemp("files")),
        BITLADDER_WEBHOOKS__ALLOWED_NETWORKS='["127.0.0.0/8"]',
    )
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


@pytest.fixture
def user(stack: Stack) -> BatchUser:
    return BatchUser(stack)


def test_a_batch_goes_from_a_file_to_its_files(user: BatchUser) -> None:
    lines = [*lines_of(62), line("bad", "x", temperature="hot"), line("none", "x", messages=[])]
    batch = user.create(lines, metadata={"run": "7"}, output_expires_after={"anchor": "created_at", "seconds": 7200})
    done = user.wait(batch.id)

    answers, errors = user.lines(done.output_file_id), user.lines(done.error_file_id)
    assert batch.status == "validating"
    assert (done.status, done.metadata, done.model) == ("completed", {"run": "7"}, "smollm2:int4")
    assert done.expires_at == done.created_at + 86_400
    assert done.request_counts
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (64, 62, 2)
    assert {
        name: answer["response"]["body"]["choices"][0]["message"]["content"] for name, answer in answers.items()
    } == {f"c{n}": f"w{n} and more" for n in range(62)}
    assert {name: error["response"]["status_code"] for name, error in errors.items()} == {"bad": 400, "none": 400}
    assert errors["none"]["response"]["body"]["error"]["param"] == "messages"
    assert done.usage
    assert done.usage.output_tokens == sum(
        answer["response"]["body"]["usage"]["completion_tokens"] for answer in answers.values()
    )
    output = user.client.files.retrieve(done.output_file_id or "")
    assert (output.purpose, output.expires_at and output.expires_at - output.created_at) == ("batch_output", 7200)
    assert user.client.batches.list(limit=1).data[0].id == batch.id
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        user.client.batches.cancel(batch.id)


def test_a_file_with_a_wrong_line_fails_as_a_whole_and_names_the_line(user: BatchUser) -> None:
    wrong = [*lines_of(16), {**line("x", "x"), "url": "/v1/embeddings"}, line("y", "y", model="gpt-9")]

    failed = user.wait(user.create(wrong).id)

    assert failed.status == "failed"
    assert failed.errors
    assert failed.errors.data
    assert [(error.line, error.code) for error in failed.errors.data] == [(17, "url_mismatch"), (18, "model_not_found")]
    assert (failed.output_file_id, failed.error_file_id) == (None, None)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"endpoint": "/v1/none"}, "endpoint"),
        ({"completion_window": "24"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
    ],
)
def test_a_new_batch_is_refused_with_the_field_that_is_wrong(
    user: BatchUser, change: dict[str, Any], param: str
) -> None:
    file = user.client.files.create(file=("in.jsonl", jsonl(lines_of(1))), purpose="batch")
    arguments: dict[str, Any] = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"} | change

    with pytest.raises(openai.BadRequestError) as refusal:
        user.client.batches.create(**arguments)

    assert refusal.value.param == param


def test_results_can_be_read_while_a_batch_runs_and_it_can_be_cancelled(user: BatchUser, stack: Stack) -> None:
    batch = user.create([line(f"c{n}", f"w{n} {'echo:slow' * (n >= 8)}") for n in range(200)], "7d")
    wait_until(lambda: bool(stack.http.get(f"/v1/batches/{batch.id}/results").content), "some results are there", 60)
    part = stack.http.get(f"/v1/batches/{batch.id}/results")
    running = user.client.batches.retrieve(batch.id)

    cancelled = user.client.batches.cancel(batch.id)
    done = user.wait(batch.id)

    assert running.status == "in_progress"
    assert running.request_counts
    assert 0 < len(part.text.splitlines()) <= running.request_counts.completed < 200
    assert (cancelled.status, done.status) == ("cancelling", "cancelled")
    answers, errors = user.lines(done.output_file_id), user.lines(done.error_file_id)
    assert {json.loads(each)["custom_id"] for each in part.text.splitlines()} <= answers.keys()
    assert sorted([*answers, *errors]) == sorted(f"c{n}" for n in range(200))
    assert {error["error"]["code"] for error in errors.values()} == {"batch_cancelled"}
    everything = stack.http.get(f"/v1/batches/{batch.id}/results").text.splitlines()
    assert len(everything) == 200


def test_a_second_post_with_the_same_idempotency_key_is_the_same_batch(user: BatchUser) -> None:
    file = user.client.files.create(file=("in.jsonl", jsonl(lines_of(1))), purpose="batch")

    def create(window: Any = "24h") -> Batch:  # noqa: ANN401  (the library knows one)
        return user.client.batches.create(
            input_file_id=file.id, endpoint=URL, completion_window=window, extra_headers={"Idempotency-Key": "k1"}
        )

    assert create().id == create().id
    with pytest.raises(openai.UnprocessableEntityError):
        create("1h")


def test_pages_of_batches_follow_each_other(user: BatchUser) -> None:
    ids = [user.create(lines_of(1)).id for _ in range(3)]

    listed = [batch.id for batch, _ in zip(user.client.batches.list(limit=2), range(3), strict=False)]

    assert listed == ids[::-1]


def test_the_end_of_a_batch_is_told_to_the_webhook_that_it_names(user: BatchUser) -> None:
    with receiving() as receiver:
        told = {"X-Webhook-Url": f"{receiver.url}/batch", "X-Webhook-Secret": SECRET}
        batch = user.create(lines_of(2), extra_headers=told)
        wait_until(lambda: bool(receiver.about("/batch")), "the end of the batch is told")

        event = receiver.about("/batch")[0].unwrap()

    assert (event.type, event.data.id) == ("batch.completed", batch.id)
    assert user.client.batches.retrieve(batch.id).status == "completed"
