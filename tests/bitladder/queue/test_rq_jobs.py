"""Jobs of RQ's own producers, script by script: what becomes of them in Redis, as RQ's own classes read it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis
from rq import Callback, Queue, Repeat, Retry
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimit
from rq.registry import DeferredJobRegistry, FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry
from rq.results import Result
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from bitladder.contract import Claimed, Outcome, State
from bitladder.queue.calls.claim import Claims
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.calls.upkeep import read_swept, sweep_call
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from workers.lease import LeaseKeeper

QUEUE = "smollm2:int4:normal"
MARKER = "Zyxwv-ninety-seven-sealions"
BODY = {"model": "smollm2", "prompt": MARKER}
DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))
WEEK_S, DAY_S, HOUR_S = 604_800, 86_400, 3_600  # queue.dead_letter_ttl_s, queue.max_wait_s, queue.result_ttl_s


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


@pytest.fixture
def theirs(store: redis.Redis) -> Queue:
    return Queue(QUEUE, connection=store, serializer=JSONSerializer)


def enqueue(theirs: Queue, **options: Any) -> Job:  # noqa: ANN401  (RQ's own)
    return theirs.enqueue("workers.generate", body=BODY, **options)


async def claims(queue: JobQueue, worker: str = "w") -> Claims:
    return await queue.claim(worker, "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 100)


async def claim(queue: JobQueue, worker: str = "w") -> Claimed:
    (claimed,) = (await claims(queue, worker)).jobs
    return claimed


async def finish(queue: JobQueue, outcome: Outcome = DONE, value: str = "", *, is_dead_letter: bool = False) -> None:
    ends = [Finished(job=await claim(queue), outcome=outcome, return_value=value, is_dead_letter=is_dead_letter)]
    assert await queue.finish("w", ends) == [True]


def failed(error: str = "no", **fields: Any) -> Outcome:  # noqa: ANN401  (the outcome's own)
    return Outcome(state=State.FAILED, status=400, code="refused_by_engine", error=error, **fields)


def reason(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    assert result.type is Result.Type.FAILED
    return str(result.exc_string)


def roughly(seconds: int) -> Any:  # noqa: ANN401  (pytest's own)
    return pytest.approx(seconds, abs=5) if seconds > 0 else seconds


async def test_a_finished_job_has_the_result_that_rq_reads(queue: JobQueue, theirs: Queue, store: redis.Redis) -> None:
    job = enqueue(theirs)

    await finish(queue, value=base64.b64encode(b'{"ok":true}').decode())
    result = job.latest_result()

    assert result is not None
    assert (result.type, result.return_value, result.worker_name) == (Result.Type.SUCCESSFUL, {"ok": True}, "w")
    assert job.id in FinishedJobRegistry(QUEUE, connection=store)


async def test_a_job_that_returns_nothing_has_a_result_all_the_same(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs)

    await finish(queue)
    result = job.latest_result()

    assert result is not None
    assert (result.type, result.return_value) == (Result.Type.SUCCESSFUL, None)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (failed(), "refused_by_engine: no"),
        (failed(body=msgspec.Raw(b'{"error":{"message":"too long"}}')), "refused_by_engine: no: too long"),
        (failed(body=msgspec.Raw(b'{"error":"too long"}')), "refused_by_engine: no: too long"),
        (failed(body=msgspec.Raw(b'{"error":["odd"]}')), "refused_by_engine: no"),
        (failed("žluťoučký 😀"), "refused_by_engine: žluťoučký 😀"),
        (failed(body=msgspec.Raw(b'{"error":"\xff"}')), "refused_by_engine: no: ?"),
        (failed(body=msgspec.Raw(b'{"error":"\xed\xa0\x80"}')), "refused_by_engine: no: ???"),
        (failed(body=msgspec.Raw(b"[" * 2000 + b"]" * 2000)), "the outcome cannot be read"),
        (failed("é" * 3000), "refused_by_engine: " + "é" * 1990),
        (failed(""), "refused_by_engine: "),
        (failed("xy"), "refused_by_engine: xy"),
        (Outcome(state=State.EXPIRED, status=504, code="job_timeout", error="late"), "job_timeout: late"),
    ],
)
async def test_a_failed_job_says_why(queue: JobQueue, theirs: Queue, outcome: Outcome, said: str) -> None:
    job = enqueue(theirs)

    await finish(queue, outcome)
    job.refresh()  # type: ignore[no-untyped-call]  # RQ

    assert reason(job) == said
    with pytest.warns(DeprecationWarning, match="exc_info"):
        assert job.exc_info == said
    assert job._exc_info == said  # what releases of RQ before results read
    assert job.is_failed
    assert job.id in FailedJobRegistry(QUEUE, connection=theirs.connection)


async def test_a_signed_reason_is_read_as_well(redis_url: str, theirs: Queue) -> None:
    settings = make_settings(redis_url, queue__secrets=("a key of at least 16 characters",))
    queue, job = JobQueue(connect(settings.redis), settings), enqueue(theirs)

    await finish(queue, failed())
    await queue.aclose()

    assert reason(job) == "refused_by_engine: no"


async def test_a_lost_worker_s_job_says_so_once_its_attempts_are_used_up(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs)
    for number in range(3):
        await claim(queue, f"w{number}")
        theirs.connection.delete(f"bl:unbegun:w{number}")  # its engine has begun the job
        theirs.connection.zadd("bl:workers", {f"w{number}": 1})
        LeaseKeeper(queue.settings, "smollm2", "int4", "reaper", held=dict, drop=lambda lost, cancelled: None).reap()

    assert reason(job) == "worker_lost: the worker was lost"


async def test_a_job_that_was_requeued_for_the_last_time_says_why(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs)
    for _ in range(3):
        claimed = await claim(queue)
        assert claimed.is_rq
        assert claimed.timeout_s == 180
        await queue.requeue("w", claimed, claimed.queue, reason=RequeueReason.CHARGED, last=failed("broke"))

    assert reason(job) == "refused_by_engine: broke"


async def test_a_cancelled_job_has_no_result(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs)

    await queue.cancel(job.id)

    assert job.get_status() == "canceled"
    assert job.latest_result() is None


@pytest.mark.parametrize(
    ("options", "outcome", "is_dead_letter", "kept_s", "told_s"),
    [
        ({}, DONE, False, HOUR_S, HOUR_S),
        ({"result_ttl": 60}, DONE, False, 60, 60),
        ({"result_ttl": -1}, DONE, False, WEEK_S, WEEK_S),
        ({"result_ttl": 10**9}, DONE, False, WEEK_S, WEEK_S),
        ({"result_ttl": 0}, DONE, False, -2, -2),
        ({"result_ttl": 60}, failed(), False, HOUR_S, HOUR_S),
        ({"failure_ttl": 60}, failed(), False, 60, 60),
        ({"failure_ttl": -1}, failed(), False, WEEK_S, WEEK_S),
        ({"failure_ttl": 0}, failed(), False, HOUR_S, -2),
        ({"failure_ttl": 60}, failed(), True, WEEK_S, 60),
    ],
)
async def test_the_times_to_live_are_the_producer_s_up_to_a_bound(
    queue: JobQueue,
    theirs: Queue,
    options: dict[str, int],
    outcome: Outcome,
    is_dead_letter: bool,
    kept_s: int,
    told_s: int,
) -> None:
    job = enqueue(theirs, **options)

    await finish(queue, outcome, is_dead_letter=is_dead_letter)
    store = theirs.connection

    assert store.ttl(job.key) == roughly(kept_s)
    assert store.ttl(f"rq:results:{job.id}") == roughly(told_s)
    assert len(FinishedJobRegistry(QUEUE, connection=store)) == (outcome is DONE and kept_s > 0)


async def test_what_rq_reads_of_a_job_goes_with_it_when_it_leaves_the_dead_letters(
    queue: JobQueue, theirs: Queue, redis_url: str
) -> None:
    small = JobQueue(queue.client, make_settings(redis_url, queue__max_dead_letters=1))
    dropped = enqueue(theirs)
    await finish(small, failed(), is_dead_letter=True)
    await DeadLetters(small).drop(await DeadLetters(small).jobs())
    others = [enqueue(theirs), enqueue(theirs)]
    for claimed in (await claims(small)).jobs:
        await small.finish("w", [Finished(job=claimed, outcome=failed(), is_dead_letter=True)])
    (kept,) = await DeadLetters(small).jobs()

    ttl_s = {job.id: theirs.connection.ttl(f"rq:results:{job.id}") for job in (dropped, *others)}

    assert ttl_s.pop(kept.job_id) == roughly(WEEK_S)
    assert list(ttl_s.values()) == [roughly(HOUR_S)] * 2


async def test_an_outcome_that_is_not_kept_reaches_whoever_waits(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs, result_ttl=0)
    with theirs.connection.pubsub() as messages:  # type: ignore[no-untyped-call]  # redis-py
        messages.subscribe(f"bl:done:{job.id}")
        assert messages.get_message(timeout=5)
        await finish(queue)
        message = messages.get_message(timeout=5)

    assert message
    assert b"finished" in message["data"]


@pytest.mark.parametrize(
    ("job_timeout", "timeout_s", "within_s"),
    [(None, 180, 180), (30, 30, 30), ("2m", 120, 120), (-1, 0, DAY_S), (10**7, 0, DAY_S)],
)
async def test_a_job_timeout_is_the_deadline_of_an_execution(
    queue: JobQueue, theirs: Queue, job_timeout: int | str | None, timeout_s: int, within_s: int
) -> None:
    job = enqueue(theirs, job_timeout=job_timeout)

    first = await claim(queue)
    await queue.requeue("w", first, first.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    await asyncio.sleep(0.05)
    second = await claim(queue)

    assert (first.timeout_s, second.timeout_s) == (timeout_s, timeout_s)
    assert first.deadline_ms == pytest.approx(first.claimed_ms + within_s * 1000, abs=1)
    assert second.deadline_ms == pytest.approx(second.claimed_ms + within_s * 1000, abs=1)
    assert theirs.connection.ttl(job.key) >= within_s  # it outlasts its execution


async def test_a_ttl_bounds_the_wait_but_not_the_execution(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs, ttl=60)

    claimed = await claim(queue)

    assert claimed.deadline_ms == pytest.approx(claimed.claimed_ms + 180_000, abs=1)
    assert theirs.connection.ttl(job.key) == roughly(180 + HOUR_S)


async def test_a_job_that_waited_beyond_its_ttl_expires_and_says_so(
    queue: JobQueue, theirs: Queue, store: redis.Redis
) -> None:
    job = enqueue(theirs, ttl=60)
    first = await claim(queue)
    await queue.requeue("w", first, first.queue, reason=RequeueReason.UNCHARGED, last=failed("busy"))
    wait: Any = store.hget(job.key, "wait")
    at, deadline, *rest = wait.split()
    assert int(deadline) - int(at) == pytest.approx(60_000, abs=2000)
    store.hset(job.key, "wait", b" ".join([at, at, *rest]))  # as a minute later

    answer = await claims(queue)

    assert (answer.jobs, answer.expired) == ([], 1)
    assert reason(job).startswith("deadline_exceeded: the deadline passed while the job waited; it had come back: ")


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("on_success", {"on_success": Callback("os.getcwd")}),
        ("on_failure", {"on_failure": Callback("os.getcwd")}),
        ("on_stopped", {"on_stopped": Callback("os.getcwd")}),
        ("webhooks", {"webhooks": [Webhook("http://127.0.0.1:9/", "finished")]}),
        ("repeat", {"repeat": Repeat(2)}),
        ("rate_limit", {"rate_limit": RateLimit("all", 1)}),
    ],
)
async def test_what_we_do_not_do_is_refused_at_the_claim_with_the_reason(
    queue: JobQueue, theirs: Queue, word: str, options: dict[str, Any]
) -> None:
    job = enqueue(theirs, **options)

    answer = await claims(queue)
    (dead,) = await DeadLetters(queue).jobs()

    assert (answer.jobs, [(refused.job_id, refused.why) for refused in answer.unfit]) == ([], [(job.id, "unsupported")])
    assert (dead.job_id, dead.code) == (job.id, "unsupported")
    assert reason(job) == f"unsupported: {word} is not supported (docs/rq.md): enqueue the job without it"


async def test_jobs_that_wait_behind_a_rate_limit_end_with_the_reason_too(queue: JobQueue, theirs: Queue) -> None:
    elsewhere = Queue("elsewhere", connection=theirs.connection, serializer=JSONSerializer)
    limit = RateLimit("all", 1)
    jobs = [enqueue(rq_queue, rate_limit=limit) for rq_queue in (theirs, theirs, theirs, elsewhere)]
    held_back = [job.get_status(refresh=True) for job in jobs]

    answer = await claims(queue)

    assert held_back == ["queued", "rate_limited", "rate_limited", "rate_limited"]
    assert {refused.job_id for refused in answer.unfit} == {job.id for job in jobs[:3]}
    assert all("rate_limit is not supported" in reason(job) for job in jobs[:3])
    assert jobs[3].get_status(refresh=True) == "rate_limited"
    next_one = enqueue(elsewhere, rate_limit=limit)
    assert {job.get_status(refresh=True) for job in (jobs[3], next_one)} == {"queued", "rate_limited"}  # RQ lets one in


@pytest.mark.parametrize("kind", ["deferred", "scheduled", "rate_limited", "created"])
async def test_a_job_that_rq_holds_back_can_be_cancelled(queue: JobQueue, theirs: Queue, kind: str) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    first = enqueue(theirs, rate_limit=RateLimit("all", 1))
    job = {
        "deferred": lambda: enqueue(theirs, depends_on=first),
        "scheduled": lambda: theirs.enqueue_at(soon, "workers.generate", body=BODY),
        "rate_limited": lambda: enqueue(theirs, rate_limit=RateLimit("all", 1)),
        "created": lambda: theirs.create_job("workers.generate", kwargs={"body": BODY}, status=JobStatus.CREATED),
    }[kind]()  # type: ignore[no-untyped-call]  # RQ
    if kind == "created":
        job.save()
        theirs.push_job_id(job.id)
    assert job.get_status(refresh=True) == kind

    word = await queue.cancel(job.id)
    view = await queue.view(job.id)
    await claims(queue)

    assert word == "cancelled"
    assert view is not None
    assert view.state is State.CANCELLED
    assert job.get_status(refresh=True) == "canceled"
    assert job.id not in DeferredJobRegistry(QUEUE, connection=theirs.connection)
    assert job.id not in ScheduledJobRegistry(QUEUE, connection=theirs.connection)  # type: ignore[no-untyped-call]  # RQ


async def test_a_job_whose_dependency_has_finished_is_refused_as_well(queue: JobQueue, theirs: Queue) -> None:
    first = enqueue(theirs)
    await finish(queue)
    second = enqueue(theirs, depends_on=first)

    answer = await claims(queue)

    assert answer.jobs == []
    assert "depends_on is not supported" in reason(second)


@pytest.mark.parametrize("outcome", [DONE, failed()])
async def test_jobs_that_depend_on_one_of_ours_end_with_it_and_with_the_reason(
    queue: JobQueue, theirs: Queue, outcome: Outcome
) -> None:
    elsewhere = Queue("elsewhere", connection=theirs.connection, serializer=JSONSerializer)
    first = enqueue(theirs)
    second, third = enqueue(theirs, depends_on=first), enqueue(elsewhere, depends_on=first)
    fourth = enqueue(theirs, depends_on=second)

    await finish(queue, outcome)

    for job in (second, third, fourth):
        assert "depends_on is not supported" in reason(job)
        assert job.get_status() == "failed"
        assert job.id not in DeferredJobRegistry(job.origin, connection=theirs.connection)


async def test_a_job_that_a_former_release_has_claimed_ends_as_rq_expects(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs)
    theirs.connection.hset(job.key, "wait", "1700000000000 - 0")

    claimed = await claim(queue)
    await queue.finish("w", [Finished(job=claimed, outcome=failed())])

    assert (claimed.is_rq, claimed.timeout_s) == (True, 180)
    assert reason(job) == "refused_by_engine: no"


async def test_a_retry_is_no_obstacle(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs, retry=Retry(max=3, interval=60), meta={"mine": 1}, at_front=True)

    await finish(queue)

    assert job.get_status() == "finished"
    assert job.get_meta() == {"mine": 1}


@pytest.mark.parametrize("end", ["finished", "failed", "canceled"])
async def test_a_description_loses_the_prompt_and_keeps_what_the_producer_wrote(
    queue: JobQueue, theirs: Queue, end: str
) -> None:
    ends: dict[str, Callable[[str], Any]] = {
        "finished": lambda _: finish(queue),
        "failed": lambda _: finish(queue, failed()),
        "canceled": queue.cancel,
    }
    told: list[str | None] = []
    for options in ({}, {"description": "nightly report 17 (all of it)"}):
        job = enqueue(theirs, **options)
        assert MARKER in str(job.description) or options
        await ends[end](job.id)
        job.refresh()  # type: ignore[no-untyped-call]  # RQ
        told.append(job.description)

    assert told == ["workers.generate(...)", "nightly report 17 (all of it)"]


async def test_a_released_job_is_still_one_of_rq_s(queue: JobQueue, theirs: Queue) -> None:
    job = enqueue(theirs)
    await finish(queue, failed(), is_dead_letter=True)
    dead_letters = DeadLetters(queue)
    await dead_letters.release(await dead_letters.jobs())

    claimed = await claim(queue)
    await queue.finish("w", [Finished(job=claimed, outcome=DONE)])
    results = [result.type for result in job.results()]

    assert (claimed.is_rq, claimed.timeout_s) == (True, 180)
    assert results == [Result.Type.SUCCESSFUL, Result.Type.FAILED]


async def test_a_result_of_a_wrong_type_costs_no_outcome(queue: JobQueue, theirs: Queue, store: redis.Redis) -> None:
    job = enqueue(theirs)
    store.set(f"rq:results:{job.id}", "x")
    store.set(f"rq:job:{job.id}:dependents", "x")

    await finish(queue, failed())
    view = await queue.view(job.id)

    assert view is not None
    assert view.state is State.FAILED


async def sweep(queue: JobQueue) -> tuple[int, list[str]]:
    call = sweep_call(queue.settings, "smollm2")
    at_once = msgspec.structs.replace(call, args=[0, *call.args[1:]])
    swept = read_swept(await queue.run(at_once))
    return swept.met, [job_id for job_id, _ in swept.ended]


async def test_a_waiting_job_has_an_end_once_it_was_met(queue: JobQueue, theirs: Queue, store: redis.Redis) -> None:
    plain, short, running = enqueue(theirs), enqueue(theirs, ttl=60), enqueue(theirs, at_front=True)
    (claimed, *_) = (await queue.claim("w", "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 1)).jobs
    before = [store.ttl(job.key) for job in (plain, short)]

    first, second = await sweep(queue), await sweep(queue)

    assert claimed.job_id == running.id
    assert before == [-1, roughly(60)]
    assert (first, second) == ((2, []), (0, []))
    assert [store.ttl(job.key) for job in (plain, short)] == [roughly(DAY_S + HOUR_S), roughly(60 + HOUR_S)]
    for job in (plain, short):
        view = await queue.view(job.id)
        assert view is not None
        assert view.deadline_ms
        assert view.position is None  # nobody counted it when it was pushed
        assert MARKER not in str(store.hget(job.key, "description"))
    assert {job.job_id for job in (await claims(queue)).jobs} == {plain.id, short.id}


async def test_a_sweep_goes_on_where_the_last_one_ended(queue: JobQueue, theirs: Queue, store: redis.Redis) -> None:
    batch = Queue("smollm2:int4:batch", connection=store, serializer=JSONSerializer)
    store.set("rq:queue:smollm2:int4:urgent", "no list")
    jobs = [enqueue(rq_queue) for rq_queue in (theirs, batch) for _ in range(300)]

    met = [(await sweep(queue))[0] for _ in range(4)]
    new = enqueue(theirs)
    later = [(await sweep(queue))[0] for _ in range(4)]

    assert (sum(met), max(met)) == (len(jobs), 256)
    assert sum(later) == 1
    assert store.ttl(new.key) > 0


async def test_one_of_many_sweepers_sweeps(queue: JobQueue, theirs: Queue) -> None:
    enqueue(theirs)

    answers = [await queue.run(sweep_call(queue.settings, "smollm2")) for _ in range(3)]

    assert answers == [[1, []], [0, []], [0, []]]


async def test_a_sweep_survives_what_is_in_its_way(queue: JobQueue, theirs: Queue, store: redis.Redis) -> None:
    store.set("bl:sweep:smollm2", "no hash")
    store.set("rq:job:odd", "no hash")
    store.set(f"rq:scheduled:{QUEUE}", "no zset")
    store.rpush(f"rq:queue:{QUEUE}", "odd", "gone")
    enqueue(theirs)

    assert await sweep(queue) == (1, [])


async def test_a_scheduled_job_that_nobody_enqueues_ends_with_the_reason(
    queue: JobQueue, theirs: Queue, store: redis.Redis
) -> None:
    now = datetime.now(UTC)
    late = theirs.enqueue_at(now - timedelta(minutes=2), "workers.generate", body=BODY)
    soon = theirs.enqueue_at(now + timedelta(minutes=2), "workers.generate", body=BODY)
    store.set(f"rq:scheduler-lock:{QUEUE}", "somebody")
    held = await sweep(queue)
    store.delete(f"rq:scheduler-lock:{QUEUE}")

    ended = await sweep(queue)

    assert (held, ended) == ((0, []), (0, [late.id]))
    assert "no scheduler of RQ runs for its queue" in reason(late)
    assert soon.get_status() == "scheduled"
    assert store.zrange(f"rq:scheduled:{QUEUE}", 0, -1) == [soon.id.encode()]
    assert [dead.code for dead in await DeadLetters(queue).jobs()] == ["unsupported"]


async def test_what_rq_s_scheduler_enqueues_runs(queue: JobQueue, theirs: Queue) -> None:
    job = theirs.enqueue_at(datetime.now(UTC) - timedelta(seconds=1), "workers.generate", body=BODY)
    scheduler = RQScheduler([theirs], theirs.connection, serializer=JSONSerializer)
    scheduler.acquire_locks()  # type: ignore[no-untyped-call]  # RQ

    scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]  # RQ
    claimed = await claim(queue)
    scheduler.release_locks()  # type: ignore[no-untyped-call]  # RQ

    assert claimed.job_id == job.id
