"""Whether what was executed, and charged, is what the faults explain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.checks.evidence import Evidence, Execution
from tests.chaos.traffic.history import Lost, Record, Told
from tests.chaos.traffic.orders import LADDER
from workers.engines.execution_log import How

# Between the look at a deadline and the line in the log.
BEGIN_SLACK_S = 0.1
# A deadline is noticed by a timer of the worker's.
END_SLACK_S = 1.0
# A worker that is lost again and again before an engine begins is charged from the next time on.
MAX_UNBEGUN = 3
# Losses that an attempt is charged for.
CHARGED = ("worker_lost", "engine_fault", "degenerate_output", "worker_defect")
# An outcome is handed in, and a job is claimed after its submission, within so much, in any weather.
AROUND_S = 5.0


def wrong_runs(its: Evidence) -> Iterator[str]:
    """Yield a sentence for everything that must not be."""
    told_of = _orders(its)
    for job_id, runs in its.executions.items():
        record, told = its.records.get(job_id), told_of.get(job_id)
        yield from _begun_twice(job_id, runs)
        if record is None:
            yield from _gone(its, job_id, runs)
        if record is None or told is None:
            continue
        for run in runs:
            yield from _out_of_bounds(its, told, record, run)
        for one, following in pairwise(sorted(runs, key=lambda run: run.fence)):
            yield from _again(its, told, one, following)
    for record in its.records.values():
        yield from _unbacked(its, record)
        yield from _charges(its, record)


def executed(its: Evidence) -> Counter[int]:
    """Count jobs by how often they were executed."""
    return Counter(len(its.executions.get(job_id, [])) for job_id in its.records)


def _orders(its: Evidence) -> dict[str, Told]:
    by_mark = its.by_mark()
    return {record.job_id: by_mark[mark] for mark, mine in its.of_mark().items() for record in mine if mark in by_mark}


def _begun_twice(job_id: str, runs: Sequence[Execution]) -> Iterator[str]:
    for fence, count in Counter(run.fence for run in runs).items():
        if count > 1:
            yield f"FENCE: claim {fence} of job {job_id} was executed {count} times"


def _gone(its: Evidence, job_id: str, runs: Sequence[Execution]) -> Iterator[str]:
    first_s = runs[0].claimed_s
    if not its.timeline.is_forgotten(first_s - AROUND_S, first_s):
        yield f"GONE: job {job_id} was claimed at {first_s:.3f} and executed, and nothing is stored of it"


def _out_of_bounds(its: Evidence, told: Told, record: Record, run: Execution) -> Iterator[str]:
    order, what = told.order, f"{told.order.delivery} {told.order.mark} (job {record.job_id}, claim {run.fence})"
    floor = None if order.queue else record.floor  # RQ's clients name a queue instead
    lowest = max(order.lowest, LADDER.index(floor) if floor else 0)
    if not lowest <= LADDER.index(run.tier) <= order.highest:
        yield f"BOUNDS: {what} ran on {run.tier}, allowed are {LADDER[lowest]} to {LADDER[order.highest]}"
    # A worker that stood still behind its claim may begin what was taken from it meanwhile; it is told at its renewal.
    is_blind = its.has_lost_its_lease(its.lives.get(run.pid), run.claimed_s, run.begin_s)
    if record.ended_s and run.begin_s > record.ended_s + BEGIN_SLACK_S and not is_blind:
        yield f"AFTER: {what} began {run.begin_s - record.ended_s:.3f} s after its end"
    cancelled_s = told.cancelled_s
    is_kept = cancelled_s and not its.timeline.is_forgotten(cancelled_s - AROUND_S, cancelled_s)
    if cancelled_s and is_kept and run.begin_s > cancelled_s + BEGIN_SLACK_S:
        yield f"AFTER: {what} began {run.begin_s - cancelled_s:.3f} s after it was cancelled"
    if record.deadline_s is not None:
        yield from _out_of_time(its, what, record.deadline_s, run)


def _out_of_time(its: Evidence, what: str, deadline_s: float, run: Execution) -> Iterator[str]:
    if run.begin_s > deadline_s + BEGIN_SLACK_S:
        yield f"LATE: {what} began {run.begin_s - deadline_s:.3f} s after its deadline"
    elif run.end_s and run.end_s > deadline_s + END_SLACK_S:
        life = its.lives.get(run.pid)
        stopped_s = its.timeline.own_s(life.service, run.begin_s, run.end_s) if life else 0
        if run.end_s - stopped_s > deadline_s + END_SLACK_S:
            yield f"OVERRAN: {what} ran on for {run.end_s - deadline_s:.3f} s after its deadline"


def _again(its: Evidence, told: Told, one: Execution, following: Execution) -> Iterator[str]:
    """Yield where a job was executed again and nothing had happened to its first worker."""
    if one.how is How.FAULT or one.how is How.LOST or one.has_yielded:
        return
    life = its.lives.get(one.pid)
    is_drained = life is not None and life.asked_s < following.begin_s
    around = (one.claimed_s, (one.end_s or one.begin_s) + AROUND_S)
    if is_drained or its.has_lost_its_lease(life, one.begin_s, following.begin_s) or its.timeline.is_forgotten(*around):
        return
    yield (
        f"AGAIN: {told.order.delivery} {told.order.mark} (job {one.job_id}) was executed by claim {one.fence} "
        f"({one.how or 'not ended'}) and again by {following.fence}, {following.begin_s - one.begin_s:.1f} s later, "
        f"though nothing had happened to {life.service if life else one.pid}"
    )


def _unbacked(its: Evidence, record: Record) -> Iterator[str]:
    if record.outcome is None or record.outcome.state != "finished":
        return
    runs = its.executions.get(record.job_id, [])
    if not any(run.fence == record.fence and run.how is How.ANSWERED for run in runs):
        yield f"UNBACKED: job {record.job_id} finished by claim {record.fence}, which no engine answered"


def _charges(its: Evidence, record: Record) -> Iterator[str]:
    """Yield charges without a reason, and sums that do not add up."""
    if record.outcome is None:
        return
    lost, code = list(_charged(record)), record.outcome.code
    if code in CHARGED:  # the last attempt: what it was lost of is the outcome
        last = Lost(at_s=record.ended_s, worker=record.worker, fence=record.fence, code=code, attempts=record.attempts)
        lost.append(last)
    for one in lost:
        yield from _charge(its, record, one)
    # The claim that ended it counts as well where an engine had begun; what was aborted may have been about to begin.
    has_run = any(run.fence == record.fence for run in its.executions.get(record.job_id, []))
    most = len(lost) + (has_run and code not in CHARGED)
    least = most if record.outcome.state in ("finished", "failed") else len(lost)
    if not least <= record.attempts <= most or record.attempts > its.max_attempts:
        yield (
            f"ATTEMPTS: job {record.job_id} was charged {record.attempts} of {its.max_attempts} attempts "
            f"(fence {record.fence}, {record.uncharged} free) for {[(one.code, one.fence) for one in lost]}, "
            f"and is {record.outcome.state}"
        )
    shown = record.outcome.attempts
    if shown and shown != record.attempts and record.outcome.state in ("finished", "failed"):
        yield f"ATTEMPTS: job {record.job_id} says {shown}, its fence {record.fence} less {record.uncharged}"


def _charged(record: Record) -> Iterator[Lost]:
    """Yield the losses that counted: each makes one attempt more.

    Where a claim was given up for lost and ended the job nevertheless, its loss was taken back.
    """
    before = 0
    for one in record.lost:
        if one.code in CHARGED and one.fence != record.fence and one.attempts > before:
            before = one.attempts
            yield one


def _charge(its: Evidence, record: Record, one: Lost) -> Iterator[str]:
    what = f"job {record.job_id} was charged for claim {one.fence} ({one.code}) of {one.worker}"
    runs = [run for run in its.executions.get(record.job_id, []) if run.fence == one.fence]
    if one.code == "engine_fault":
        if not any(run.how is How.FAULT for run in runs):
            yield f"CHARGED: {what}, whose engine did not break on it"
    elif one.code != "worker_lost":
        yield f"CHARGED: {what}"
    elif not its.has_lost_its_lease(its.names.get(one.worker), one.at_s, one.at_s):
        life = its.names.get(one.worker)
        yield f"CHARGED: {what} ({life.service if life else 'unknown'}), to which nothing had happened"
    elif not runs and record.unbegun <= MAX_UNBEGUN:
        yield f"UNRUN: {what}, which never began"
