"""bitladder/queue/dead_letters.py: which jobs come there, and how they leave, on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import redis

from bitladder.contract import Outcome, State
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.calls.leases import reap_call
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.dead_letters import Choice, DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import QueueName
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.sections import Settings
from tests.bitladder.queue.test_job_queue import claim, job, submit
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture
from tests.conftest import make_settings

BROKEN = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke")


async def kill(queue: JobQueue, code: str = "engine_fault", tier: str = "int4") -> str:
    """Use up the attempts of a new job."""
    mine = job(tier)
    await submit(queue, mine)
    for _ in range(queue.settings.queue.max_attempts):
        claimed = (await claim(queue, tier))[0]
        last = Outcome(state=State.FAILED, status=502, code=code, error="it broke", tier=tier)
        await queue.requeue(f"w-{tier}", claimed, claimed.queue, reason=RequeueReason.CHARGED, last=last)
    return mine.job_id


async def test_a_job_whose_attempts_are_used_is_kept_with_what_happened_to_it(queue: JobQueue) -> None:
    job_id = await kill(queue)

    (dead,) = await DeadLetters(queue).jobs()
    history = await DeadLetters(queue).history(job_id)

    assert (dead.job_id, dead.code) == (job_id, "engine_fault")
    assert dead.view is not None
    assert (dead.view.state, dead.view.attempts) == (State.FAILED, 3)
    assert dead.view.request is not None
    assert bytes(dead.view.request.body) == b'{"prompt":"x"}'
    assert [loss.worker for loss in history] == ["w-int4", "w-int4"]
    assert history[0].fence < history[1].fence
    assert {loss.outcome.error for loss in history if loss.outcome} == {"it broke"}


async def test_a_refused_a_cancelled_and_an_expired_job_are_no_business_of_the_dead_letters(
    queue: JobQueue, store: redis.Redis
) -> None:
    refused, gone, late = job(), job(), job(deadline_ms=1)
    await submit(queue, refused, gone, late)
    await queue.cancel(gone.job_id)
    await asyncio.sleep(0.01)  # the server's clock has to move
    (claimed,) = await claim(queue, "int4")
    outcome = Outcome(state=State.FAILED, status=400, code="refused_by_engine", error="no")
    await queue.finish("w-int4", [Finished(job=claimed, outcome=outcome)])

    assert await DeadLetters(queue).jobs() == []
    for ended in (refused, gone, late):
        assert store.hget(f"rq:job:{ended.job_id}", "data") == b'["workers.generate",null,[],{}]'  # no prompt


async def test_a_released_job_waits_again_with_all_its_attempts(queue: JobQueue, store: redis.Redis) -> None:
    job_id = await kill(queue)
    last: Any = store.hget(f"rq:job:{job_id}", "fence")
    dead_letters = DeadLetters(queue)

    released = await dead_letters.release(await dead_letters.jobs())
    view = await queue.view(job_id)
    again = (await claim(queue, "int4"))[0]

    assert released == [job_id]
    assert view is not None
    assert (view.state, view.position, view.outcome) == (State.QUEUED, 1, None)
    assert (again.job_id, again.attempt) == (job_id, 1)
    assert again.fence > int(last)
    assert await dead_letters.jobs() == []
    assert store.zcard("rq:failed:smollm2:int4:normal") == 0


async def test_nobody_s_late_answer_ends_a_released_job(queue: JobQueue) -> None:
    await submit(queue, job())
    (claimed,) = await claim(queue, "int4")
    end = Finished(job=claimed, outcome=BROKEN, is_dead_letter=True)
    await queue.finish("w-int4", [end])
    dead_letters = DeadLetters(queue)
    await dead_letters.release(await dead_letters.jobs())

    assert await queue.finish("w-int4", [end]) == [False]
    assert len(await claim(queue, "int4")) == 1


async def test_a_job_that_ended_where_it_waits_is_there_once_when_it_is_released(
    queue: JobQueue, store: redis.Redis
) -> None:
    await submit(queue, job(), job())
    claimed, _ = await claim(queue, "int4")
    await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.UNCHARGED, last=BROKEN)
    await queue.finish("w-int4", [Finished(job=claimed, outcome=BROKEN, is_dead_letter=True)])
    dead_letters = DeadLetters(queue)
    await dead_letters.release(await dead_letters.jobs())
    view = await queue.view(claimed.job_id)

    assert store.lrange(f"rq:queue:{claimed.queue}", 0, -1) == [claimed.job_id.encode()]
    assert view is not None
    assert view.position == 1
    assert [depth.depth for depth in (await queue.depths("smollm2")).queues if depth.queue == claimed.queue] == [1]


async def test_a_dropped_job_s_prompt_is_forgotten_and_its_outcome_kept_for_a_while(
    queue: JobQueue, store: redis.Redis
) -> None:
    job_id = await kill(queue)
    dead_letters = DeadLetters(queue)

    dropped = await dead_letters.drop(await dead_letters.jobs())
    view = await queue.view(job_id)

    assert dropped == [job_id]
    assert view is not None
    assert (view.state, view.request) == (State.FAILED, None)
    assert '"prompt":"x"' not in str(store.hgetall(f"rq:job:{job_id}"))
    assert await dead_letters.history(job_id) == []
    assert 0 < store.ttl(f"rq:job:{job_id}") <= queue.settings.queue.result_ttl_s


async def test_jobs_are_chosen_by_id_error_queue_and_age(queue: JobQueue) -> None:
    first, second, third = await kill(queue), await kill(queue, "poison"), await kill(queue, tier="fp8")
    dead_letters = DeadLetters(queue)

    async def ids(choice: Choice) -> set[str]:
        return {dead.job_id for dead in await dead_letters.jobs(choice)}

    assert await ids(Choice(ids=[first])) == {first}
    assert await ids(Choice(code="poison")) == {second}
    assert await ids(Choice(queue="smollm2:fp8")) == {third}
    assert await ids(Choice(queue="smollm2:fp")) == set()
    assert await ids(Choice(before_ms=1)) == set()
    assert await ids(Choice()) == {first, second, third}


async def test_the_dead_letters_has_a_bound_and_the_oldest_make_room(
    redis_url: str, queue: JobQueue, store: redis.Redis
) -> None:
    small = JobQueue(queue.client, make_settings(redis_url, queue__max_dead_letters=2))
    ids = [await kill(small) for _ in range(4)]

    kept = [dead.job_id for dead in await DeadLetters(small).jobs()]

    assert sorted(kept) == sorted(ids[2:])
    prompts = [b'{"prompt":"x"}' in (store.hget(f"rq:job:{job_id}", "data") or b"") for job_id in ids]
    assert prompts == [False, False, True, True]


async def test_dead_lettered_jobs_are_kept_for_a_time_of_their_own(queue: JobQueue, store: redis.Redis) -> None:
    job_id = await kill(queue)

    assert store.ttl(f"rq:job:{job_id}") > queue.settings.queue.result_ttl_s
    assert 0 < store.ttl("bl:dead_letters") <= queue.settings.queue.dead_letter_ttl_s


async def test_a_status_that_is_none_of_rq_s_sends_the_job_to_dead_letters(queue: JobQueue, store: redis.Redis) -> None:
    planted, fine = job(), job()
    await submit(queue, planted, fine)
    store.hset(f"rq:job:{planted.job_id}", "status", "\x80\x04garbage")

    claimed = await claim(queue, "int4")
    (dead,) = await DeadLetters(queue).jobs()

    assert [job.job_id for job in claimed] == [fine.job_id]
    assert (dead.job_id, dead.code) == (planted.job_id, "corrupt_job")


async def test_an_id_without_a_job_is_dropped_and_counted(queue: JobQueue, store: redis.Redis) -> None:
    evicted, fine = job(), job()
    await submit(queue, evicted, fine)
    store.delete(f"rq:job:{evicted.job_id}")
    store.rpush("rq:queue:smollm2:int4:normal", "not:an{id}", "a-string")
    store.set("rq:job:a-string", "no hash")

    claims = await queue.claim("w", "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 10)

    assert [job.job_id for job in claims.jobs] == [fine.job_id]
    assert {refused.job_id: refused.why for refused in claims.unfit} == {
        evicted.job_id: "no_record",
        "not:an{id}": "no_record",
        "a-string": "corrupt_job",
    }
    assert store.llen("rq:queue:smollm2:int4:normal") == 0


async def test_an_isolated_job_keeps_its_attempts_and_says_how_often_its_engine_crashed(queue: JobQueue) -> None:
    await submit(queue, job())

    seen = []
    for _ in range(3):
        claimed = (await claim(queue, "int4"))[0]
        seen.append((claimed.attempt, claimed.crash_count))
        await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.CRASHED, last=BROKEN)

    assert seen == [(1, 0), (1, 1), (1, 2)]


async def test_a_job_whose_worker_was_lost_twice_runs_alone(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, job())

    seen = []
    for number in range(3):
        claimed = (await claim(queue, "int4", worker=f"lost-{number}"))[0]
        seen.append((claimed.attempt, claimed.crash_count))
        await queue.mark_begun(f"lost-{number}", [claimed.job_id])
        store.zadd("bl:workers", {f"lost-{number}": 1})
        await _reap(queue)
    (dead,) = await DeadLetters(queue).jobs()

    assert seen == [(1, 0), (2, 0), (3, 2)]
    assert dead.code == "worker_lost"


async def _reap(queue: JobQueue) -> None:
    await queue.run(reap_call(queue.settings))


async def test_a_list_of_a_few_reads_the_prompts_of_no_others(queue: JobQueue, store: redis.Redis) -> None:
    prompt = "x" * 50_000
    for number in range(300):
        data = f'["workers.generate",null,[],{{"body":{{"prompt":"{prompt}"}}}}]'
        fields: dict[Any, Any] = {"status": "failed", "origin": "smollm2:int4:normal", "data": data, "wait": "1 2 3"}
        store.hset(
            f"rq:job:dead-{number}", mapping=fields | {"outcome": '{"state":"failed","status":500,"code":"poison"}'}
        )
        store.zadd("bl:dead_letters", {f"dead-{number}": number})
    store.config_resetstat()

    dead_letters = DeadLetters(queue)
    heads = await dead_letters.heads()
    jobs = await dead_letters.look(heads[:5])
    (letter,) = await dead_letters.jobs(Choice(ids=["dead-7"]))

    sent: Any = store.info("stats")
    assert [job.job_id for job in jobs] == [f"dead-{number}" for number in range(299, 294, -1)]
    assert {(head.code, head.queue) for head in heads} == {("poison", "smollm2:int4:normal")}
    assert letter.view
    assert sent["total_net_output_bytes"] < 10 * len(prompt)


async def test_a_dead_letter_of_the_longest_names_is_released(settings: Settings) -> None:
    model, tiers = "m" * 128, ("l" * 63, "h" * 63)
    named = ModelSettings.model_validate({"tiers": [{"name": tier} for tier in tiers]})
    client = connect(settings.redis)
    queue = JobQueue(client, settings.model_copy(update={"models": {model: named}}))
    mine = msgspec.structs.replace(job(), model=model, queue=str(QueueName(model, tiers[0], "normal", tiers[0])))
    await submit(queue, mine)
    (claimed,) = (await queue.claim("w", model, tiers[0], claim_plan(queue.settings, model, tiers[0]), 1)).jobs
    await queue.finish("w", [Finished(job=claimed, outcome=BROKEN, is_dead_letter=True)])

    dead_letters = DeadLetters(queue)

    assert await dead_letters.release(await dead_letters.jobs()) == [mine.job_id]
    await client.aclose()
