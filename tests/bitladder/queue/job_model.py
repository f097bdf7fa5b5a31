"""A model of the queue in plain Python, and the check of a real Valkey against it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis

from bitladder.queue.calls.end import RequeueReason
from bitladder.queue_name import QueueName, list_of

MODEL = "smollm2"
LADDER = ("int4", "int8", "fp8")
ENDED = ("finished", "failed", "canceled")
# Reasons that end a job which no engine has begun.
UNSTARTED_ENDS = {
    RequeueReason.EXPIRED: "failed",
    RequeueReason.CANCELLED: "canceled",
    RequeueReason.REFUSED: "failed",
}
MAX_UNBEGUN = 3

# Everything in one round trip: a test may walk all keys.
_DUMP = """
local readers = {
  string = {'GET'}, hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'}, zset = {'ZRANGE', 0, -1},
  stream = {'XRANGE', '-', '+'},
}
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local reader = readers[redis.call('TYPE', key).ok]
  out[#out + 1] = {key, redis.call(reader[1], key, unpack(reader, 2)), redis.call('PTTL', key)}
end
return cmsgpack.pack(out)
"""


@dataclass
class Job:
    """What one job must look like."""

    job_id: str
    queue: str  # where it waits, or waited before it was claimed
    status: str = "queued"
    worker: str | None = None  # the last one that claimed it
    fence: int = 0
    uncharged: int = 0
    is_over: bool = False  # its deadline has passed: the next claim that meets it ends it
    is_late: bool = False  # it has waited for more than its share of its deadline: it may overflow
    is_stored: bool = True  # False: it ended, and its time to live ran out
    cancel: bool = False  # asked for while it ran
    tenant: str = ""  # '' where its jobs are not counted
    crash_count: int = 0
    unbegun: int = 0  # times it was lost before an engine had begun it
    spared: int = 0  # the claim that went back uncharged last
    losses: int = 0  # executions that came to nothing, for people to read
    key: str = ""
    fingerprint: str = ""
    chunks: list[str] = field(default_factory=list)  # ids in its stream
    outcome: str | None = None

    @property
    def waits_in(self) -> str:
        return list_of(self.queue, self.tenant)

    @property
    def attempts(self) -> int:
        return self.fence - self.uncharged

    def charge(self, reason: RequeueReason) -> bool:
        """Count an attempt, or do not, of a job that comes back for this reason; return whether it was counted."""
        self.unbegun += reason is RequeueReason.UNBEGUN
        is_charged = reason in (RequeueReason.CHARGED, RequeueReason.REAPED) or (
            reason is RequeueReason.UNBEGUN and self.unbegun > MAX_UNBEGUN
        )
        if not is_charged:
            self.uncharged, self.spared = self.uncharged + 1, self.fence
        return is_charged


class Model:
    """Jobs and lists as they must be."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.lists: dict[str, list[str]] = {}  # leftovers included: ids of jobs that ended while they waited
        self.keys: dict[str, str] = {}  # idempotency key -> id
        self.dead: set[str] = set()  # among the dead letters
        self.unbegun: dict[str, set[str]] = {}  # by worker: what no engine has begun, as far as anybody was told

    def held(self, worker: str) -> set[str]:
        return {job.job_id for job in self.jobs.values() if job.status == "started" and job.worker == worker}

    def queues(self) -> set[str]:
        return {name.partition(":tenant-")[0] for name in self.lists}

    def depth(self, queue: str) -> int:
        return sum(self.length(name) for name in self.lists if name == queue or name.startswith(f"{queue}:tenant-"))

    def length(self, name: str) -> int:
        """Return how many jobs wait in a list."""
        return sum(self.jobs[job_id].status == "queued" for job_id in set(self.lists[name]))

    def place(self, job: Job) -> int:
        """Return a waiting job's place among those that wait in its list."""
        its = self.lists[job.waits_in]
        return sum(self.jobs[other].status == "queued" for other in its[: its.index(job.job_id)]) + 1

    def of_tenant(self, tenant: str) -> set[str]:
        return {
            job.job_id for job in self.jobs.values() if job.tenant == tenant and job.status in ("queued", "started")
        }

    def owner_of(self, key: str) -> Job | None:
        """Return the job that an idempotency key stands for; a cancelled one frees it."""
        job = self.jobs.get(self.keys.get(key, ""))
        return None if job is None or job.status == "canceled" or not job.is_stored else job

    def push(self, job: Job) -> None:
        self.jobs[job.job_id] = job
        self.lists.setdefault(job.waits_in, []).append(job.job_id)
        if job.key:
            self.keys[job.key] = job.job_id

    def bury(self, job: Job) -> None:
        job.status = "failed"
        self.dead.add(job.job_id)

    def requeue_job(self, job: Job, target: str, reason: RequeueReason, max_attempts: int) -> str:
        """Do what requeue_job.lua does with a held job."""
        is_charged, attempts = job.charge(reason), job.attempts
        if job.cancel:
            job.status = "canceled"
            return "ended"
        if reason in UNSTARTED_ENDS:
            job.status = UNSTARTED_ENDS[reason]
            self.dead |= {job.job_id} if reason is RequeueReason.REFUSED else set()
            return "ended"
        if attempts >= max_attempts:
            self.bury(job)
            return "ended"
        job.losses += reason is RequeueReason.CRASHED or is_charged
        if reason is RequeueReason.CRASHED:
            job.crash_count = min(2, job.crash_count + 1)
        elif reason is RequeueReason.REAPED and attempts > 1:
            job.crash_count = 2
        job.status, job.queue = "queued", target
        self.lists.setdefault(job.waits_in, []).insert(0, job.job_id)
        return "returned"

    def release(self, job: Job) -> None:
        self.dead.discard(job.job_id)
        job.status, job.worker, job.uncharged, job.outcome = "queued", None, job.fence, None
        job.is_over = job.is_late = job.cancel = False
        job.unbegun = job.spared = 0
        its = self.lists.setdefault(job.waits_in, [])
        if job.job_id not in its:  # it may have ended while it waited: then it has its place still
            its.append(job.job_id)


class Dump:
    """One look at the whole server."""

    def __init__(self, client: redis.Redis) -> None:
        rows: list[Any] = msgspec.msgpack.decode(client.eval(_DUMP, 0))
        self.values: dict[str, Any] = {key: value for key, value, _ in rows}
        self.ttls: dict[str, int] = {key: ttl for key, _, ttl in rows}

    def of(self, prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): its for key, its in self.values.items() if key.startswith(prefix)}

    def hash(self, key: str) -> dict[str, str]:
        flat = self.values.get(key, [])
        return dict(zip(flat[::2], flat[1::2], strict=True))


def check(model: Model, dump: Dump) -> None:
    """Compare everything that the model knows with what is stored."""
    assert {name: ids for name, ids in model.lists.items() if ids} == dump.of("rq:queue:")
    stored = [job for job in model.jobs.values() if job.is_stored]
    assert {job.job_id for job in stored} == set(dump.of("rq:job:"))
    for job in stored:
        _check_job(job, dump)
        if job.key and model.owner_of(job.key) is job:
            assert dump.ttls[f"bl:idem:{MODEL}:{job.key}"] == dump.ttls[f"rq:job:{job.job_id}"], (
                "a repeat finds its job"
            )
    _check_holders(model, dump)
    _check_depths(model, dump)
    _check_ends(model, dump)


def _check_job(job: Job, dump: Dump) -> None:
    stored = dump.hash(f"rq:job:{job.job_id}")
    assert stored["status"] == job.status
    assert (int(stored.get("fence", 0)), int(stored.get("uncharged", 0))) == (job.fence, job.uncharged)
    assert stored.get("worker_name") == job.worker
    assert dump.ttls[f"rq:job:{job.job_id}"] > 0
    if job.status in ("queued", "started"):
        assert stored["origin"] == job.queue
    assert int(stored.get("crash_count", 0)) == job.crash_count
    assert int(stored.get("unbegun", 0)) == job.unbegun
    assert stored.get("history", "").count("\n") == job.losses
    # One end, which never changes.
    assert (job.status in ENDED) == ("outcome" in stored)
    if job.outcome is None:
        job.outcome = stored.get("outcome")
    assert stored.get("outcome") == job.outcome
    assert [entry[0] for entry in dump.values.get(f"bl:stream:{job.job_id}", [])] == job.chunks


def _check_holders(model: Model, dump: Dump) -> None:
    started = [job for job in model.jobs.values() if job.status == "started"]
    held = {worker: set(ids) for worker, ids in dump.of("bl:inflight:").items()}
    assert held == {worker: model.held(worker) for worker in {str(job.worker) for job in started}}
    assert set(held) <= set(dump.values.get("bl:workers", [])), "somebody holds jobs without a lease that can run out"
    unbegun = {worker: set(ids) & model.held(worker) for worker, ids in dump.of("bl:unbegun:").items()}
    told = {worker: ids & model.held(worker) for worker, ids in model.unbegun.items()}
    assert {name: ids for name, ids in unbegun.items() if ids} == {name: ids for name, ids in told.items() if ids}
    wip = Counter((queue, entry) for queue, its in dump.of("rq:wip:").items() for entry in its)
    assert wip == Counter((job.queue, f"{job.job_id}:{job.fence}") for job in started)


def _check_depths(model: Model, dump: Dump) -> None:
    for queue, ids in model.lists.items():
        counts = dump.hash(f"bl:counts:{queue}")
        assert len(ids) - int(counts.get("gone", 0)) * bool(ids) == model.length(queue), queue
        leftovers = {job_id for job_id in ids if model.jobs[job_id].status != "queued"}
        assert set(dump.values.get(f"bl:gone:{queue}", ())) == leftovers, queue
        popped = int(counts.get("popped", 0))
        for place, job_id in enumerate(ids, 1):
            if model.jobs[job_id].status == "queued":
                number = int(dump.hash(f"rq:job:{job_id}")["wait"].split(" ")[2])
                assert number - popped == place, f"position of {job_id} in {queue}"
    for queue in model.queues():
        of = QueueName.parse(queue)
        counts = dump.hash(f"bl:tenants:{of.model}:{of.tier}")
        ids = [job_id for name, ids in model.lists.items() if name.startswith(f"{queue}:tenant-") for job_id in ids]
        waiting = sum(model.jobs[job_id].status == "queued" for job_id in ids)
        assert (int(counts.get(queue, 0)), int(counts.get(f"gone:{queue}", 0))) == (len(ids), len(ids) - waiting)


def _check_ends(model: Model, dump: Dump) -> None:
    assert set(dump.values.get("bl:dead_letters", ())) == model.dead
    counted = {tenant: set(ids) for tenant, ids in dump.of("bl:tenant:").items()}
    tenants = {job.tenant for job in model.jobs.values()} - {""}
    assert counted == {tenant: ids for tenant in tenants if (ids := model.of_tenant(tenant))}
    ends = Counter(
        (status, queue, job_id) for status in ENDED for queue, ids in dump.of(f"rq:{status}:").items() for job_id in ids
    )
    assert ends == Counter((job.status, job.queue, job.job_id) for job in model.jobs.values() if job.status in ENDED)
