"""Claiming jobs: claim.lua."""

from __future__ import annotations

from typing import Any

import msgspec

from bitladder.contract import Claimed
from bitladder.ids import read_id
from bitladder.queue.calls.retention import retention
from bitladder.queue.claim_plan import ClaimPlan, lists_key
from bitladder.queue.run_script import Argument, Call
from bitladder.queue.untrusted import read_amount
from bitladder.settings.sections import Settings


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    """An id that was in a list and cannot run."""

    job_id: str
    why: str  # no_record, or the error code that the job ended with


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one claim."""

    jobs: list[Claimed]
    now_ms: int  # server clock
    expired: int  # dropped because their deadline had passed
    unfit: list[Unfit]
    held: int  # nothing is given out; 1: all claims pause, 2: those of this tier, 3: this worker drains
    is_cut: bool  # more wait, for which the answer had no room


def wake_key(model: str, tier: str) -> str:
    """Return the list in which a token lies while jobs may wait for a worker of the tier."""
    return f"bl:wake:{model}:{tier}"


def claim_call(
    settings: Settings, worker: str, model: str, tier: str, plan: ClaimPlan, limits: tuple[int, int, int]
) -> Call:
    """Build the call of claim.lua; limits: jobs, bytes of their data together, and ms that a job takes here."""
    slots, max_bytes, service_ms = limits
    keys = ["bl:workers", f"bl:inflight:{worker}", f"bl:turn:{model}:{tier}", wake_key(model, tier), lists_key(model)]
    lease_ms = int(settings.queue.lease_s * 1000)
    args: list[Argument] = [worker, slots, lease_ms, plan.plan, retention(settings), max_bytes, service_ms, plan.scheme]
    return Call("claim", keys, args)


def read_claimed(answer: list[Any]) -> Claims:
    """Read the answer of claim.lua."""
    now, expired, rows, unfit, held, is_cut = answer
    return Claims(
        jobs=[_claimed(row, int(now)) for row in rows],
        now_ms=int(now),
        expired=int(expired),
        unfit=[Unfit(job_id=read_id(job_id), why=why.decode()) for job_id, why in unfit],
        held=int(held),
        is_cut=bool(is_cut),
    )


def _claimed(row: list[Any], now: int) -> Claimed:
    job_id, data, queue, attempt, fence, at, deadline, crash_count, mac, *more = row
    timeout, spent = (*more, b"", b"")[:2]
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
        is_rq=timeout != b"",
        timeout_s=int(timeout or 0),
        spent=read_amount(spent),
        has_returned=len(more) > 1,
    )
