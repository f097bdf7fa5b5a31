"""bitladder/queue/sending/submitting.py: each job of a bundle gets its own answer, and the answer is true."""

from __future__ import annotations

import time
from functools import partial

import msgspec
import pytest
import redis

from bitladder.contract import State, Submission
from bitladder.errors import AcceptanceUnknownError, QueueBrokenError
from bitladder.queue.calls.end import Doubtful
from bitladder.queue.calls.submit import submit_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.run_script import NotSentError, UnansweredError
from bitladder.queue.sending.exchange import call_each, exchange
from bitladder.queue.sending.server_time import EarliestServerTime
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.bitladder.queue.test_job_queue import claim, job, queue  # noqa: F401  (a fixture)
from tests.chaos.proxy import Proxy
from tests.conftest import free_port, make_settings, wait_until

QUEUE = "smollm2:int4:normal"


def of_tenant(submission: Submission, tenant: str) -> Submission:
    request = msgspec.structs.replace(submission.request, tenant=tenant)
    return msgspec.structs.replace(submission, request=request, max_of_tenant=100)


def doubtful(submission: Submission) -> Doubtful:
    return Doubtful(job_id=submission.job_id, queue=submission.queue, tenant=submission.request.tenant)


async def test_what_is_wrong_with_one_job_or_queue_is_no_other_s_fault(queue: JobQueue, store: redis.Redis) -> None:  # noqa: F811
    jobs = [job() for _ in range(60)] + [job("int8") for _ in range(60)]
    store.set(f"rq:job:{jobs[20].job_id}", "planted")
    store.set("rq:queue:smollm2:int8:normal", "planted")

    answers = await queue.submit(jobs)

    good = [job.job_id for job in jobs[:60] if job is not jobs[20]]
    assert [answer for answer in answers if isinstance(answer, str)] == good
    assert store.lrange(f"rq:queue:{QUEUE}", 0, -1) == [job_id.encode() for job_id in good]
    assert {type(answer) for answer in (answers[20], *answers[60:])} == {QueueBrokenError}
    assert "rq:queue:smollm2:int8:normal: WRONGTYPE" in str(answers[-1])
    assert not any(store.exists(f"rq:job:{job.job_id}") for job in jobs[60:])


@pytest.mark.parametrize(
    "key",
    [
        f"bl:counts:{QUEUE}",
        "bl:tenant:acme",
        "bl:idem:smollm2:k",
        "rq:queues",
        "bl:wake:smollm2:int4",
        f"rq:wip:{QUEUE}",
    ],
)
async def test_a_key_beside_the_queue_that_is_of_another_type_loses_no_job(
    queue: JobQueue,  # noqa: F811
    store: redis.Redis,
    key: str,
) -> None:
    store.hset(key, "planted", "x") if key.startswith("bl:idem") else store.set(key, "planted")
    first, second = of_tenant(job(idempotency_key="k", fingerprint="f"), "acme"), of_tenant(job(), "acme")

    answers = await queue.submit([first, second])
    depths = await queue.depths("smollm2")
    claimed = await claim(queue, "int4")

    assert answers == [first.job_id, second.job_id]
    assert sum(listed.depth for listed in depths.queues) == 2
    assert [job.job_id for job in claimed] == answers


async def test_a_job_that_was_withdrawn_before_it_arrived_never_waits(queue: JobQueue, store: redis.Redis) -> None:  # noqa: F811
    late = of_tenant(job(), "acme")

    assert await queue.withdraw([doubtful(late)]) == [True]
    await queue.submit([late])
    view = await queue.view(late.job_id)

    assert store.llen(f"rq:queue:{QUEUE}") == 0
    assert view is not None
    assert (view.state, view.tenant) == (State.CANCELLED, "acme")
    assert 0 < store.ttl(f"rq:job:{late.job_id}") <= 3600


async def test_a_withdrawn_job_that_waits_is_cancelled_and_one_that_is_over_stays_so(
    queue: JobQueue,  # noqa: F811
    store: redis.Redis,
) -> None:
    waiting, gone = job(), job()
    await queue.submit([gone])
    await queue.cancel(gone.job_id)
    before = store.hgetall(f"rq:job:{gone.job_id}")
    await queue.submit([waiting])

    assert await queue.withdraw([doubtful(waiting), doubtful(gone)]) == [True, True]

    assert await claim(queue, "int4") == []
    assert store.hgetall(f"rq:job:{gone.job_id}") == before


async def test_a_submission_that_comes_after_it_was_given_up_is_not_carried_out(
    settings: Settings, store: redis.Redis
) -> None:
    with Proxy(int(settings.redis.url.rpartition(":")[2].removesuffix("/0"))) as proxy:
        far = make_settings(f"redis://127.0.0.1:{proxy.port}/0")
        queue = JobQueue(connect(far.redis), far)  # the limits are the defaults
        await queue.submit([job()])
        late = job()
        store.config_resetstat()
        proxy.hold()

        (doubt,) = await queue.submit([late])
        proxy.heal()
        wait_until(lambda: "errorstat_LATE" in store.info("errorstats"), "what was held has arrived, and was refused")
        (after,) = await queue.submit([job()])
        await queue.aclose()

    assert isinstance(doubt, AcceptanceUnknownError)
    assert isinstance(after, str)
    assert not store.exists(f"rq:job:{late.job_id}")


async def test_a_server_whose_clock_has_jumped_takes_jobs_all_the_same(settings: Settings, store: redis.Redis) -> None:
    client, clock, mine = connect(settings.redis), EarliestServerTime(), job()
    clock.heard(int((time.time() - 3600) * 1000))
    call = submit_call(settings, JobQueue(client, settings).signer, (QUEUE, "", 0), [mine])

    (rows,) = await call_each(partial(exchange, client.connection_pool), [call], clock, 1.6)
    await client.aclose()

    assert rows == [[b"accepted", mine.job_id.encode(), 1]]
    assert abs(clock.after(0) - time.time() * 1000) < 1000


async def test_it_is_told_apart_whether_a_command_was_sent(settings: Settings, store: redis.Redis) -> None:
    nowhere = connect(make_settings(f"redis://127.0.0.1:{free_port()}/0").redis)
    assert [type(answer) for answer in await exchange(nowhere.connection_pool, [("PING",)] * 2)] == [NotSentError] * 2
    await nowhere.aclose()
    with Proxy(int(settings.redis.url.rpartition(":")[2].removesuffix("/0"))) as proxy:
        client = connect(make_settings(f"redis://127.0.0.1:{proxy.port}/0").redis)
        first, refused, last = await exchange(client.connection_pool, [("PING",), ("HGET", "bl:protocol"), ("PING",)])
        assert (first, type(refused), last) == (b"PONG", redis.ResponseError, b"PONG")
        proxy.black_hole()
        assert [type(answer) for answer in await exchange(client.connection_pool, [("PING",)] * 2)] == [
            UnansweredError
        ] * 2
        await client.aclose()
