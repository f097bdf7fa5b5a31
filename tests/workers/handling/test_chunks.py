"""workers/handling/chunks.py: what one execution sends after another one was lost, on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis

from bitladder.contract import Chunk, Claimed, Emitted, Outcome, State
from bitladder.producer import Producer
from bitladder.queue.calls.end import RequeueReason
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.rq_call import decode_call
from bitladder.settings.sections import Settings
from workers.handling.chunks import Chunks, ChunkSender
from workers.metrics.worker_metrics import WorkerMetrics

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "x", "temperature": 0, "stream": True}
ANSWER = b'{"id":"second","choices":[{"index":0,"text":"one two"}]}'
DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(ANSWER))


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


def event(text: str, run: str = "second") -> bytes:
    fields = {"id": run, "choices": [{"index": 0, "text": text}]}
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


async def claim(queue: JobQueue) -> Claimed:
    plan = claim_plan(queue.settings, "smollm2", "int4")
    (job,) = (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs
    return job


async def returned(queue: JobQueue, body: dict[str, Any], *sent: str) -> tuple[Claimed, Claimed]:
    """Let a job be claimed, sent in part and drained, and be claimed again."""
    with Producer(queue.settings) as producer:
        producer.submit(body)
    first = await claim(queue)
    chunks = [Chunk(fence=first.fence, number=number, data=event(text, "first")) for number, text in enumerate(sent, 1)]
    assert await queue.emit("me", [(first.job_id, chunk) for chunk in chunks]) == [Emitted.STORED] * len(sent)
    await queue.requeue("me", first, first.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    return first, await claim(queue)


async def execute(queue: JobQueue, job: Claimed, *texts: str) -> tuple[Outcome, list[tuple[int, int, int, bytes]]]:
    """Send an answer; return its outcome, and what is stored of the stream then."""
    metrics = WorkerMetrics("smollm2", "int4")
    chunks = Chunks(ChunkSender(queue, "me", metrics), job, lambda: None, lambda: None)
    chunks.begin(decode_call(job.data))
    for text in texts:
        await chunks.send(event(text))
    outcome = await chunks.end(DONE)
    return outcome, [(one.fence, one.number, one.after, one.data) for one in await queue.chunks(job.job_id, 0, 0)]


async def test_an_execution_goes_on_behind_what_was_sent_under_the_same_id(queue: JobQueue) -> None:
    first, job = await returned(queue, BODY, "one", " t")

    outcome, stored = await execute(queue, job, "one tw", "o")

    assert stored == [
        (first.fence, 1, 0, event("one", "first")),
        (first.fence, 2, 0, event(" t", "first")),
        (job.fence, 3, first.fence, event("w", "first")),
        (job.fence, 4, 0, event("o", "first")),
    ]
    assert (outcome.chunks, outcome.streamed_by) == (4, 0)
    assert outcome.answer == ANSWER.replace(b"second", b"first")


async def test_an_answer_of_which_all_was_sent_has_no_chunk_of_its_last_execution(queue: JobQueue) -> None:
    first, job = await returned(queue, BODY, "one", " two")

    outcome, stored = await execute(queue, job, "one two")

    assert [chunk[:2] for chunk in stored] == [(first.fence, 1), (first.fence, 2)]
    assert (outcome.chunks, outcome.streamed_by) == (2, first.fence)


@pytest.mark.parametrize(
    ("body", "texts"),
    [(BODY, ("one", " too")), (BODY, ("one",)), (BODY | {"temperature": 1}, ("one", " two"))],
    ids=["different", "shorter", "by chance"],
)
async def test_another_answer_is_sent_from_its_beginning(
    queue: JobQueue, body: dict[str, Any], texts: tuple[str, ...]
) -> None:
    _, job = await returned(queue, body, "one", " two")

    outcome, stored = await execute(queue, job, *texts)

    assert b"".join(data for *_, data in stored) == b"".join(map(event, texts))
    assert [chunk[:3] for chunk in stored] == [(job.fence, number, 0) for number in range(1, len(stored) + 1)]
    assert (outcome.chunks, outcome.streamed_by) == (len(stored), 0)
    assert outcome.answer == ANSWER


async def test_an_answer_is_begun_anew_where_some_of_it_is_no_longer_stored(
    queue: JobQueue, store: redis.Redis
) -> None:
    first, job = await returned(queue, BODY, "one", " two", " three")
    store.xdel(f"bl:stream:{job.job_id}", f"{first.fence}-2")

    _, stored = await execute(queue, job, "one", " two", " three", " four")

    assert [chunk[:3] for chunk in stored] == [(job.fence, number, 0) for number in range(1, 5)]
