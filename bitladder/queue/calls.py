"""What each script is called with, and how its answer reads: no I/O, so sync and async clients share it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from bitladder.contract import DEFAULT_TENANT, Claimed, Lane, Outcome, State, Submission, encode_call, queue_name
from bitladder.errors import (
    AcceptanceUnknownError,
    BitladderError,
    ConflictError,
    QueueBrokenError,
    QueueFullError,
    QuotaError,
)
from bitladder.ids import read_id
from bitladder.queue.run_script import Argument, digest
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.settings.sections import Settings

# RQ's words for the ends of a job; an expired job is a failed one to RQ's tools.
RQ_STATUS = {
    State.FINISHED: "finished",
    State.FAILED: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "canceled",
}

# The answer of submit.lua to a call that comes too late.
LATE = re.compile(r"LATE (\d{1,15})")

# Jobs with their places among those that were submitted together.
Placed = list[tuple[int, Submission]]
# Queue, tenant ('' where its jobs are not counted), and how many jobs it may have (0: no limit).
Group = tuple[str, str, int]


class Call(msgspec.Struct, frozen=True):
    """One EVALSHA."""

    script: str
    keys: Sequence[str]
    args: Sequence[Argument]
    is_timely: bool = False  # its first argument, before `args`, says until when it may run

    def words(self, until_ms: int) -> Sequence[Argument]:
        """Return the call as a command; `until_ms`: on the server's clock."""
        limit = (until_ms,) if self.is_timely else ()
        return ("EVALSHA", digest(self.script), len(self.keys), *self.keys, *limit, *self.args)


def late(answer: Any) -> int | None:  # noqa: ANN401  (whatever Redis answers)
    """Return what the server's clock showed, where it refused a call because that came too late."""
    found = LATE.fullmatch(str(answer)) if isinstance(answer, ResponseError) else None
    return int(found[1]) if found else None


class LostError(Exception):
    """There is no answer to a command, for this reason."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason: Exception = reason.reason if isinstance(reason, LostError) else reason


class NotSentError(LostError):
    """The command has not reached a server that would carry it out."""


class UnansweredError(LostError):
    """The command was sent, and has been carried out, or not, or will yet be."""


# What stands for an answer: ResponseError (Redis refused), or one of the two above.
Rows = list[Any] | Exception


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One job's end on its way to Redis."""

    job: Claimed
    outcome: Outcome
    return_value: str = ""  # base64 of JSON, for jobs enqueued by RQ
    is_dead_letter: bool = False  # people should look at it: it goes to the dead letters


def keep(settings: Settings) -> str:
    """Return how long jobs are kept, as prelude.lua reads it."""
    queue = settings.queue
    ttl, dead_ttl, wait = (s * 1000 for s in (queue.result_ttl_s, queue.dead_letter_ttl_s, queue.max_wait_s))
    return f"{ttl} {dead_ttl} {queue.max_dead_letters} {wait}"


def submit_call(settings: Settings, signer: Signer, group: Group, jobs: Sequence[Submission]) -> Call:
    """Build the call of submit.lua for jobs of one group."""
    queue, tenant, quota = group
    model, tier, lane = queue.split(":")[:3]
    ladder = settings.model(model).ladder
    climbs = lane in settings.lanes.overflow
    keys = [
        f"rq:queue:{queue}",
        f"bl:counts:{queue}",
        "rq:queues",
        f"bl:wake:{model}:{tier}",
        f"bl:tenant:{tenant or '-'}",
        *(f"bl:wake:{model}:{name}" for name in ladder[ladder.index(tier) + 1 :]),
    ]
    high = settings.model(model).tier(tier).high if climbs else 0
    is_shared = tenant in ("", DEFAULT_TENANT) or lane == Lane.BATCH
    fair = 0 if is_shared else settings.queue.fair_depth
    args: list[Argument] = [model, queue, settings.queue.max_depth, high, settings.queue.result_ttl_s * 1000]
    args += [tenant, quota, fair]
    longest_ms = settings.queue.max_wait_s * 1000
    for job in jobs:
        request, data = job.request, encode_call(job.request)
        args += (
            job.job_id,
            data,
            # RQ's default description holds the arguments, and with them the prompt; ours does not.
            f"{request.endpoint}: {request.reason}",
            job.deadline_ms or longest_ms,
            job.reply_to,
            job.idempotency_key,
            job.fingerprint,
            signer.job_mac(job.job_id, data),
        )
    return Call("submit", keys, args, is_timely=True)


def by_group(settings: Settings, placed: Iterable[tuple[int, Submission]]) -> dict[Group, Placed]:
    """Group numbered jobs by queue, tenant and limit: each group goes with one call."""
    groups: dict[Group, Placed] = {}
    most = settings.queue.max_per_tenant
    for place, job in placed:
        quota = job.max_of_tenant or most
        tenant = job.request.tenant
        counted = tenant if quota or tenant != DEFAULT_TENANT else ""  # the default tenant is everybody
        groups.setdefault((job.queue, counted, quota), []).append((place, job))
    return groups


def demoted(answers: Mapping[int, Rows], jobs: Mapping[int, Submission]) -> Placed:
    """Return the jobs whose tenant has more than its share of their lane, each on its way to the batch lane.

    So a tenant that submits very many keeps nobody else waiting.
    """
    places = [place for place, row in answers.items() if not isinstance(row, Exception) and row[0] == b"crowded"]
    return [(place, _in_batch(jobs[place])) for place in places]


def _in_batch(job: Submission) -> Submission:
    model, tier, _ = job.queue.split(":")[:3]
    return msgspec.structs.replace(job, queue=queue_name(model, tier, Lane.BATCH, job.request.ceiling))


def spread(rows: Rows, its: Placed) -> list[tuple[int, Submission, Rows]]:
    """Return what a call of submit.lua says of each job of its group: an exception says the same of all."""
    each = [rows] * len(its) if isinstance(rows, Exception) else rows
    return [(place, job, row) for (place, job), row in zip(its, each, strict=True)]


def unsafe(rows: Rows, reason: Exception) -> Rows:
    """Return the answers of submit.lua where those jobs that it says it has may not be safe, for this reason."""
    if not isinstance(rows, list):
        return rows
    return [UnansweredError(reason) if row[0] in (b"accepted", b"duplicate") else row for row in rows]


def read_submitted(answer: Rows, job: Submission) -> str | BitladderError:
    """Return the id under which the job is stored, its own or that of the first one with its key, or why it is not."""
    if isinstance(answer, UnansweredError):
        message = f"it is not known whether the job {job.job_id} was accepted: {answer}"
        return AcceptanceUnknownError(message, job_id=job.job_id)
    if isinstance(answer, LostError):
        return _unaccepted("nothing was accepted, Redis does not answer", answer.reason)
    if isinstance(answer, Exception):
        return _unaccepted("nothing was accepted, Redis refused", answer)
    word, job_id = answer[0], read_id(answer[1])
    if word == b"broken":
        message = f"queue {job.queue} takes no jobs, nothing was accepted: {answer[2].decode(errors='replace')}"
        return QueueBrokenError(message)
    if word == b"full":
        return QueueFullError(f"queue {job.queue} is full ({int(answer[2])} jobs wait)", retry_after_s=5)
    if word == b"quota":
        message = f"tenant {job.request.tenant} has {int(answer[2])} jobs waiting or running, its most"
        return QuotaError(message, retry_after_s=5)
    if word == b"mismatch":
        return ConflictError("the Idempotency-Key was used with another request body", param="Idempotency-Key")
    return job_id


def _unaccepted(what: str, error: Exception) -> BitladderError:
    told = unreachable(what, error)
    if told.public:
        told.public = f"nothing was accepted: {told.public}"
    return told


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    """An id that was in a list and does not run."""

    job_id: str
    why: str  # no_record, or the error code that the job ended with


class Doubtful(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was submitted and not answered, as far as withdrawing it needs it."""

    job_id: str
    queue: str
    tenant: str


def cancel_call(settings: Settings, signer: Signer, job_id: str, withdrawn: Doubtful | None = None) -> Call:
    """Build the call of cancel.lua; `withdrawn`: for a job that may not have arrived yet."""
    why = ": nobody could come back for it" if withdrawn else ""
    outcome = Outcome(state=State.CANCELLED, status=409, code="cancelled", error=f"the job was cancelled{why}")
    about = [withdrawn.queue, withdrawn.tenant] if withdrawn else ["", ""]
    return Call("cancel", [f"rq:job:{job_id}"], [job_id, signer.encode(job_id, outcome), keep(settings), *about])


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What one claim brought."""

    jobs: list[Claimed]
    now_ms: int  # server clock
    expired: int  # dropped because their deadline had passed
    unfit: list[Unfit]
    is_suspended: bool  # nothing is given out until `rq resume`
    is_cut: bool  # more wait, for which the answer had no room


def claim_call(settings: Settings, worker: str, model: str, tier: str, plan: str, limits: tuple[int, int]) -> Call:
    """Build the call of claim.lua; limits: of the jobs, and of the bytes of their data together."""
    slots, max_bytes = limits
    keys = ["bl:workers", f"bl:inflight:{worker}", f"bl:turn:{model}:{tier}", f"bl:wake:{model}:{tier}"]
    return Call("claim", keys, [worker, slots, int(settings.queue.lease_s * 1000), plan, keep(settings), max_bytes])


def read_claimed(answer: list[Any]) -> Claims:
    """Read what claim.lua returns."""
    now, expired, rows, unfit, is_suspended, is_cut = answer
    return Claims(
        jobs=[_claimed(row, int(now)) for row in rows],
        now_ms=int(now),
        expired=int(expired),
        unfit=[Unfit(job_id=read_id(job_id), why=why.decode()) for job_id, why in unfit],
        is_suspended=bool(is_suspended),
        is_cut=bool(is_cut),
    )


def _claimed(row: list[Any], now: int) -> Claimed:
    job_id, data, queue, attempt, fence, at, deadline, crash_count, mac, *timeout = row
    return Claimed(
        job_id=read_id(job_id),
        queue=queue.decode(),
        data=data,
        attempt=int(attempt),
        fence=int(fence),
        enqueued_ms=int(at),
        deadline_ms=int(float(deadline)) if deadline else None,
        claimed_ms=now,
        crash_count=int(crash_count),
        mac=mac,
        is_rq=bool(timeout),
        timeout_s=int(timeout[0]) if timeout else 0,
    )


def finished_bytes(item: Finished) -> int:
    """Return about how much of a call of finish.lua one job's end takes."""
    return len(item.outcome.body) + len(item.return_value)


def submitted_bytes(job: Submission) -> int:
    """Return about how much of a call of submit.lua one job takes."""
    return len(job.request.body)


def finish_call(settings: Settings, signer: Signer, worker: str, jobs: Sequence[Finished]) -> Call:
    """Build the call of finish.lua."""
    args: list[Argument] = [worker, keep(settings)]
    for item in jobs:
        job, outcome = item.job, item.outcome
        status = "dead" if item.is_dead_letter else RQ_STATUS[outcome.state]
        value = item.return_value or ("-" if job.is_rq else "")
        args += [job.job_id, job.queue, job.fence, status, signer.encode(job.job_id, outcome), value]
    return Call("finish", [f"bl:inflight:{worker}"], args)
