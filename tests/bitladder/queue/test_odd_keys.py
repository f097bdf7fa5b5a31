"""A key that somebody has written over stops nobody: what is in it is made anew, or left alone."""

from __future__ import annotations

import pytest
import redis

from bitladder.queue.calls.end import Finished
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.load_sample import take_sample
from tests.bitladder.queue.test_job_queue import DONE, claim, job
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture
from workers.lease import LeaseKeeper

QUEUE = "smollm2:int4:normal"
KEYS = [
    "bl:turn:smollm2:int4",
    "bl:live:smollm2:int4",
    "bl:workers",
    "bl:pulse",
    f"bl:counts:{QUEUE}",
    f"bl:gone:{QUEUE}",
    "bl:tenants:smollm2:int4",
    f"bl:shares:{QUEUE}",
    f"bl:virtual:{QUEUE}",
    "bl:weights",
    "bl:lists:smollm2",
    f"bl:due:{QUEUE}",
    "bl:drain:smollm2:int4:normal",
    "bl:health:smollm2:int4",
    "bl:pace:smollm2:int4",
    "bl:served:smollm2",
    "bl:sweep:smollm2",
    "bl:wake:smollm2:int4",
    "bl:overflow:smollm2:int4:normal",
    "bl:inflight:w-int4",
    "bl:unbegun:w-int4",
    "bl:cancel:w-int4",
    "rq:workers",
    f"rq:workers:{QUEUE}",
    "rq:worker:w-int4",
    "rq:queues",
    f"rq:queue:{QUEUE}:max-int4",
    f"rq:wip:{QUEUE}",
    f"rq:finished:{QUEUE}",
    f"rq:canceled:{QUEUE}",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("odd", [("SET", "x"), ("HSET", "x", "y"), ("RPUSH", "x")], ids=lambda odd: odd[0])
async def test_whatever_is_written_over_a_key_jobs_are_taken_in_run_and_end(
    queue: JobQueue, store: redis.Redis, key: str, odd: tuple[str, ...]
) -> None:
    if not (key.startswith("rq:queue:") and odd[0] == "RPUSH"):  # that is what it is
        store.execute_command(odd[0], key, *odd[1:])  # type: ignore[no-untyped-call]  # redis-py
    leases = LeaseKeeper(queue.settings, "smollm2", "int4", "w-int4", held=dict, drop=lambda lost, cancelled: None)
    first, second = job(), job()

    leases.renew()
    assert await queue.submit([first, second]) == [first.job_id, second.job_id]
    assert sum(listed.depth for listed in (await queue.depths("smollm2")).queues) == 2
    await take_sample(queue.client, queue.settings)
    await queue.overview()
    claimed = await claim(queue, "int4")
    assert [job.job_id for job in claimed] == [first.job_id, second.job_id]
    leases.renew()
    leases.reap()
    assert await queue.finish("w-int4", [Finished(job=claimed[0], outcome=DONE)]) == [True]
    assert await queue.cancel(second.job_id) == "requested"
    assert await DeadLetters(queue).heads() == []
    leases.stop()
