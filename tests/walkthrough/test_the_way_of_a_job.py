"""The system as a tutorial: one job from a prompt to an outcome, without HTTP and without processes. Read downwards."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest_asyncio

from bitladder.contract import Outcome, State
from bitladder.endpoints import Endpoint
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.routing.accept import Incoming, accept
from bitladder.settings.sections import Settings
from workers.clock import ServerClock
from workers.engines.echo import EchoEngine
from workers.execute import Executor, Verdict
from workers.handling.chunks import Chunks, ChunkSender
from workers.metrics.worker_metrics import WorkerMetrics

BODY = b'{"model": "smollm2", "prompt": "aa bb", "max_tokens": 3, "unknown": "kept"}'


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


def incoming(**headers: str) -> Incoming:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Incoming(endpoint=Endpoint.COMPLETIONS, body=BODY, headers=named, request_id="req_1")


def test_1_a_request_is_scored_and_routed_to_a_floor(settings: Settings) -> None:
    job = accept(incoming(), settings).submission

    assert job.queue == "smollm2:int4:normal"
    assert job.request.decision.reason == "entropy 1.52 <= 4.5"


def test_2_the_envelope_is_in_the_headers(settings: Settings) -> None:
    job = accept(incoming(x_priority="9"), settings).submission

    assert job.queue == "smollm2:fp8:urgent"


def test_3_a_ceiling_is_part_of_the_queue_s_name(settings: Settings) -> None:
    job = accept(incoming(x_max_tier="int8"), settings).submission

    assert job.queue == "smollm2:int4:normal:max-int8"


async def test_4_a_job_waits_in_redis_until_a_worker_claims_it(queue: JobQueue, settings: Settings) -> None:
    job = accept(incoming(), settings).submission

    await queue.submit([job])
    waiting = await queue.view(job.job_id)
    claimed = (await queue.claim("me", "smollm2", "int4", claim_plan(settings, "smollm2", "int4"), slots=8)).jobs

    assert waiting is not None
    assert waiting.state is State.QUEUED
    assert [taken.job_id for taken in claimed] == [job.job_id]


async def test_5_the_engine_gets_the_body_as_the_client_sent_it(queue: JobQueue, settings: Settings) -> None:
    job = accept(incoming(), settings).submission
    await queue.submit([job])
    claimed = (await queue.claim("me", "smollm2", "int4", claim_plan(settings, "smollm2", "int4"), slots=8)).jobs
    begun: list[str] = []

    def on_begin() -> None:
        begun.append(claimed[0].job_id)

    executor, engine = Executor(queue.signer, ServerClock()), EchoEngine(settings.echo)
    chunks = Chunks(
        ChunkSender(queue, "me", WorkerMetrics("smollm2", "int4")), claimed[0], on_first=on_begin, on_lost=on_begin
    )
    done = await executor.execute(claimed[0], engine, chunks, lambda _: on_begin(), on_end=lambda: None)

    assert begun == [job.job_id]
    assert done.verdict is Verdict.FINISH
    assert done.request is not None
    assert bytes(done.request.body) == BODY
    assert msgspec.json.decode(done.outcome.answer or b"")["choices"][0]["text"] == "aa bb aa"


async def test_6_an_outcome_ends_the_job_and_can_be_read(queue: JobQueue, settings: Settings) -> None:
    job = accept(incoming(), settings).submission
    await queue.submit([job])
    claimed = (await queue.claim("me", "smollm2", "int4", claim_plan(settings, "smollm2", "int4"), slots=8)).jobs
    outcome = Outcome(state=State.FINISHED, status=200, tier="int4", body=msgspec.Raw(b'{"answer": 42}'))

    await queue.finish("me", [Finished(job=claimed[0], outcome=outcome)])
    view = await queue.view(job.job_id)

    assert view is not None
    assert view.outcome == outcome
