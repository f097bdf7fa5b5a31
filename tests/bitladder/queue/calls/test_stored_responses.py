"""Stored responses: jobs that keep their requests, live longer, and make room for each other."""

from __future__ import annotations

import msgspec
import redis
import uuid_utils

from bitladder.contract import Outcome, ResponseOptions, State, Submission
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.script_constants import RESPONSE_PREFIX
from tests.bitladder.queue.test_job_queue import claim, job, submit
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture

WEEK_MS, HOUR_MS = 604_800_000, 3_600_000


def response(*, is_stored: bool = True, body: bytes = b'{"input":"x"}', tenant: str = "default") -> Submission:
    plain = job()
    request = msgspec.structs.replace(
        plain.request, body=msgspec.Raw(body), response=ResponseOptions(store=is_stored), tenant=tenant
    )
    job_id = f"{RESPONSE_PREFIX}{uuid_utils.uuid7().hex}"
    return msgspec.structs.replace(plain, job_id=job_id if is_stored else plain.job_id, request=request)


async def finish(queue: JobQueue, *jobs: Submission, text: str = "done") -> None:
    await submit(queue, *jobs)
    done = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(msgspec.json.encode({"output": text})))
    claimed = await claim(queue, "int4")
    assert len(claimed) == len(jobs)
    assert all(await queue.finish("w-int4", [Finished(job=item, outcome=done) for item in claimed]))


async def test_a_stored_response_keeps_its_request_for_a_week_and_others_lose_it(
    queue: JobQueue, store: redis.Redis
) -> None:
    kept, unstored = response(), response(is_stored=False)

    await finish(queue, kept, unstored)

    views = [await queue.view(made.job_id) for made in (kept, unstored)]
    assert [bytes(view.request.body) if view and view.request else b"" for view in views] == [b'{"input":"x"}', b""]
    assert 0.99 * WEEK_MS < store.pttl(f"rq:job:{kept.job_id}") <= WEEK_MS
    assert store.pttl(f"rq:job:{unstored.job_id}") <= HOUR_MS


async def test_the_oldest_responses_of_a_tenant_make_room_for_new_ones(queue: JobQueue, store: redis.Redis) -> None:
    limits = queue.settings.queue.model_copy(update={"max_response_bytes": 10_000})
    queue = JobQueue(queue.client, queue.settings.model_copy(update={"queue": limits}))
    large = b'{"input":"%s"}' % (b"x" * 3000)
    made = [response(body=large, tenant="acme") for _ in range(4)]
    other = response(body=large, tenant="other")

    await finish(queue, other)
    for one in made:
        await finish(queue, one)

    gone = [store.exists(f"rq:job:{item.job_id}") for item in (*made, other)]
    assert gone == [0, 1, 1, 1, 1]
    sizes = [int(store.hget(f"rq:job:{item.job_id}", "size") or 0) for item in made]
    assert store.zscore("bl:responses:acme", "bytes") == sum(sizes) <= 10_000


async def test_a_response_larger_than_its_tenants_room_is_kept_alone(queue: JobQueue, store: redis.Redis) -> None:
    limits = queue.settings.queue.model_copy(update={"max_response_bytes": 100})
    queue = JobQueue(queue.client, queue.settings.model_copy(update={"queue": limits}))
    first, second = response(), response()

    await finish(queue, first)
    await finish(queue, second)

    assert [store.exists(f"rq:job:{item.job_id}") for item in (first, second)] == [0, 1]


async def test_nothing_is_left_of_a_response_that_is_forgotten(queue: JobQueue, store: redis.Redis) -> None:
    over, waiting, running = response(), response(), response()
    await finish(queue, over)
    await submit(queue, running)
    (claimed,) = await claim(queue, "int4")
    await submit(queue, waiting)

    answers = [await queue.forget(item.job_id) for item in (over, over, waiting, running)]

    assert answers == ["forgotten", "missing", "forgotten", "requested"]
    assert [store.exists(f"rq:job:{item.job_id}") for item in (over, waiting, running)] == [0, 0, 1]
    assert store.zrange("bl:responses:-", 0, -1, withscores=True) == [(b"bytes", 0.0)]
    assert await claim(queue, "int4") == []
    cancelled = Outcome(state=State.CANCELLED, status=409, code="cancelled")
    assert await queue.finish("w-int4", [Finished(job=claimed, outcome=cancelled)]) == [True]
    assert await queue.forget(running.job_id) == "forgotten"


async def test_a_response_that_is_released_from_the_dead_letters_is_counted_once(
    queue: JobQueue, store: redis.Redis
) -> None:
    mine = response()
    await submit(queue, mine)
    broken = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke")
    for _ in range(queue.settings.queue.max_attempts):
        (claimed,) = await claim(queue, "int4")
        await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.CHARGED, last=broken)
    letters = DeadLetters(queue)
    assert await letters.release(await letters.jobs()) == [mine.job_id]

    (claimed,) = await claim(queue, "int4")
    done = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b"{}"))
    await queue.finish("w-int4", [Finished(job=claimed, outcome=done)])

    size = store.hget(f"rq:job:{mine.job_id}", "size")
    assert store.zscore("bl:responses:-", "bytes") == int(size or 0)
    assert store.zcard("bl:responses:-") == 2
