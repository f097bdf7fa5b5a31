"""Storing and pushing jobs: submit.lua."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bitladder.contract import Submission
from bitladder.errors import (
    AcceptanceUnknownError,
    BitladderError,
    ConflictError,
    QueueBrokenError,
    QueueFullError,
    QuotaError,
)
from bitladder.ids import in_key, read_id
from bitladder.queue.claim_plan import is_eager
from bitladder.queue.run_script import Argument, Call, LostError, Rows, UnansweredError
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.queue_name import DEFAULT_TENANT, Lane, QueueName, list_of
from bitladder.rq_call import encode_call
from bitladder.settings.sections import Settings

# Jobs with their numbers among those that were submitted together.
Placed = list[tuple[int, Submission]]
# Queue, tenant ('' where its jobs are not counted), and how many jobs it may have (0: no limit).
Group = tuple[str, str, int]


def prefix_key(model: str, tier: str, prefix: str) -> str:
    """Return the key that names the worker of a tier that served a prefix last."""
    return f"bl:prefix:{model}:{tier}:{prefix or '-'}"


def submit_call(settings: Settings, signer: Signer, group: Group, jobs: Sequence[Submission]) -> Call:
    """Build the call of submit.lua for jobs of one group."""
    queue, tenant, quota = group
    name = QueueName.parse(queue)
    model, tier, lane = name.model, name.tier, name.lane
    others = [serving for serving in name.serving(settings.model(model).ladder) if serving != tier]
    waits_in = list_of(queue, tenant)
    keys = [
        f"rq:queue:{waits_in}",
        f"bl:counts:{waits_in}",
        "rq:queues",
        f"bl:wake:{model}:{tier}",
        f"bl:tenant:{tenant or '-'}",
        prefix_key(model, tier, jobs[-1].request.prefix),  # one token wakes one worker, which takes all of them
        *(f"bl:wake:{model}:{other}" for other in others),
    ]
    is_shared = tenant in ("", DEFAULT_TENANT) or lane == Lane.BATCH
    fair = 0 if is_shared else settings.queue.fair_depth
    args: list[Argument] = [
        in_key(model),
        queue,
        settings.queue.max_depth,
        _wakes_above(settings, name, others),
        settings.queue.result_ttl_s * 1000,
    ]
    longest_ms = settings.queue.max_wait_s * 1000
    args += [tenant, quota, fair, max(job.weight for job in jobs), longest_ms, _rare_fields(jobs)]
    for job in jobs:
        request, data = job.request, encode_call(job.request)
        args += (
            job.job_id,
            data,
            # RQ's default description holds the arguments, and with them the prompt; ours does not.
            f"{request.endpoint}: {request.decision.reason}",
            job.deadline_ms or longest_ms,
            job.reply_to,
            job.idempotency_key,
            job.fingerprint,
            signer.job_mac(job.job_id, data),
        )
    return Call("submit", keys, args, is_timely=True)


def _rare_fields(jobs: Sequence[Submission]) -> bytes:
    """Return fields of records that few jobs have, by the job's number in the call; b'' where none has any."""
    fields: dict[str, dict[str, str]] = {}
    for number, job in enumerate(jobs, 1):
        if job.hook or job.labels:
            named = {"hook": job.hook, "labels": job.labels}
            fields[str(number)] = {name: value for name, value in named.items() if value}
    return msgspec.json.encode(fields) if fields else b""


def _wakes_above(settings: Settings, queue: QueueName, others: Sequence[str]) -> int:
    """Return from how many jobs on the other tiers are woken; -1: batch jobs are found by who looks."""
    eager = [tier for tier in others if is_eager(settings, queue.model, tier, queue.lane)]
    if eager and queue.lane != Lane.BATCH:
        return 0
    return settings.model(queue.model).tier(queue.tier).high if queue.lane in settings.lanes.overflow else -1


def by_group(settings: Settings, placed: Iterable[tuple[int, Submission]]) -> dict[Group, Placed]:
    """Group numbered jobs by queue, tenant and limit: each group goes with one call."""
    groups: dict[Group, Placed] = {}
    for place, job in placed:
        quota = job.max_of_tenant or settings.queue.max_per_tenant
        tenant = job.request.tenant
        counted = tenant if quota or tenant != DEFAULT_TENANT else ""  # the default tenant is not one client
        groups.setdefault((job.queue, counted, quota), []).append((place, job))
    return groups


def demoted(answers: Mapping[int, Rows], jobs: Mapping[int, Submission]) -> Placed:
    """Return the jobs whose tenant has more than its share of their lane, each changed to go to the batch lane.

    So a tenant that submits very many jobs does not delay the others.
    """
    places = [place for place, row in answers.items() if not isinstance(row, Exception) and row[0] == b"crowded"]
    return [(place, _in_batch(jobs[place])) for place in places]


def _in_batch(job: Submission) -> Submission:
    name = msgspec.structs.replace(QueueName.parse(job.queue), lane=Lane.BATCH)
    return msgspec.structs.replace(job, queue=str(name))


def spread(rows: Rows, jobs: Placed) -> list[tuple[int, Submission, Rows]]:
    """Return the answer of submit.lua for each job of a group: an exception is the answer for all."""
    row_of_each = [rows] * len(jobs) if isinstance(rows, Exception) else rows
    return [(place, job, row) for (place, job), row in zip(jobs, row_of_each, strict=True)]


def unsafe(rows: Rows, reason: Exception) -> Rows:
    """Return the answers of submit.lua where it is not known, for this reason, whether its jobs are safe."""
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
    refusal = unreachable(what, error)
    if refusal.public:
        refusal.public = f"nothing was accepted: {refusal.public}"
    return refusal


def submitted_bytes(job: Submission) -> int:
    """Return about how many bytes one job takes in a call of submit.lua."""
    return len(job.request.body)
