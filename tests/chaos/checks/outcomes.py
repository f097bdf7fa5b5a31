"""Whether what clients were told and read can be true together with what Redis holds at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.chaos.checks.evidence import Evidence
from tests.chaos.traffic.history import Record, Seen, Told, Try
from tests.chaos.traffic.orders import Delivery

# What a job may fail of here; anything else is a defect.
FAIR_CODES = ("engine_fault", "worker_lost", "drained")
POISON_CODES = (*FAIR_CODES, "poison")  # of those alone that took the engine down
# A job is stored after its request was sent, by a clock that counts milliseconds.
SLACK_S = 0.005
# What is published is read a moment later.
READ_S = 2.0
# After an outcome is there, or an outage is over, an awaiting client hears within so much.
HEARD_S = 15.0


def wrong_outcomes(its: Evidence) -> Iterator[str]:
    """Yield a sentence for everything that must not be."""
    yield from its.history.found
    yield from (sentence for *time, sentence in its.history.went_back if not its.timeline.is_forgotten(*time))
    yield from _unknown(its)
    for told in its.history.told.values():
        for job_id, accepted in told.ids.items():
            yield from _lost(its, told, job_id, accepted)
    for job_id, seen in its.history.seen.items():
        yield from _of_readers(its, job_id, seen)
    for record in its.records.values():
        if record.outcome is None:
            yield f"UNENDED: job {record.job_id} is {record.status}"
    marks, by_mark = its.of_mark(), its.by_mark()
    for told in its.history.told.values():
        yield from _of_order(its, told, marks.get(told.order.mark, []))
    yield from (f"UNSENT: a job has the mark {word}, which nobody sent" for word in marks if word not in by_mark)


def _unknown(its: Evidence) -> Iterator[str]:
    """Yield where somebody said that what had been accepted is not there, in part or as a whole."""
    for job_id, by, at_s in its.history.unknown:
        if job_id in its.records or not _is_forgotten(its, job_id):
            yield f"UNKNOWN: {by} said at {at_s:.3f} that it does not know job {job_id}, which had been accepted"
    for told in its.history.told.values():
        if not all(its.timeline.is_forgotten(*between) for between in told.gone):
            yield f"UNKNOWN: {told.order.delivery} {told.order.mark} was told that its job is gone, which it is not"
    for job_id, by, at_s in its.history.incomplete:
        record = its.records.get(job_id)
        if record is not None and not _may_be_incomplete(its, record):
            yield f"GAP: {by} said at {at_s:.3f} that not all of the stream of job {job_id} is stored, without a reason"


def _may_be_incomplete(its: Evidence, record: Record) -> bool:
    """Return whether the server may have lost chunks, or they went when the claim that ended the job was given up."""
    is_given_up = any(one.fence == record.fence for one in record.lost)
    return is_given_up or its.timeline.is_forgotten(record.created_s, record.ended_s)


def _is_forgotten(its: Evidence, job_id: str) -> bool:
    """Return whether a job was accepted in a last second that the server has lost."""
    accepted = [told.ids[job_id] for told in its.history.told.values() if job_id in told.ids]
    return any(its.timeline.is_forgotten(one.sent_s, one.heard_s) for one in accepted)


def _lost(its: Evidence, told: Told, job_id: str, accepted: Try) -> Iterator[str]:
    record, order = its.records.get(job_id), told.order
    if record is None and not its.timeline.is_forgotten(accepted.sent_s, accepted.heard_s):
        yield f"LOST: job {job_id} ({order.delivery} {order.mark}) was accepted at {accepted.heard_s:.3f} and is gone"
    elif record is not None and record.outcome is None:
        yield f"LOST: job {job_id} ({order.delivery} {order.mark}) never ended: it is {record.status}"


def _of_readers(its: Evidence, job_id: str, seen: list[Seen]) -> Iterator[str]:
    record = its.records.get(job_id)
    known = [*seen, record.outcome] if record and record.outcome else seen
    for other in known[1:]:
        first_s = min(one.at_s for one in known if not one.contradicts(known[0]))
        if other.contradicts(known[0]) and not its.timeline.is_forgotten(first_s - READ_S, first_s):
            yield f"CHANGED: job {job_id} was {known[0]}, and then {other}"


def _of_order(its: Evidence, told: Told, mine: list[Record]) -> Iterator[str]:
    order, outcomes = told.order, [record.outcome for record in mine if record.outcome]
    if len(mine) > 1 and not told.may_be_cancelled and not any(_is_forgotten(its, job.job_id) for job in mine):
        what = f"key {order.key}" if order.key else f"one request ({order.delivery} {order.mark})"
        yield f"TWICE: {what} has {len(mine)} jobs: {sorted(record.job_id for record in mine)}"
    for seen in told.ran:
        is_kept = not its.timeline.is_forgotten(seen.at_s - READ_S, seen.at_s)
        if is_kept and all(seen.contradicts(outcome) for outcome in outcomes):
            yield f"CHANGED: {order.mark} was {seen}, which none of {outcomes} is"
    for outcome in outcomes:
        if why := _why_wrong(its, told, outcome):
            yield f"WRONG: {order.delivery} {order.mark} {why}"
    yield from _silent(its, told, mine)
    for record in mine:
        yield from _refused(its, told, record)
        if record.rq is not None and (why := _why_wrong_for_rq(told, record)):
            yield f"RQ: {order.mark} {why}"


def _why_wrong(its: Evidence, told: Told, outcome: Seen) -> str | None:
    order = told.order
    if order.delivery is Delivery.RQ and its.is_signed:  # RQ's clients cannot sign
        return None if outcome.code == "bad_signature" else f"is {outcome}, though it is not signed"
    if outcome.state == "finished" and outcome.text != order.expected:
        return f"was answered {outcome.text!r}, not {order.expected!r}"
    if outcome.state == "expired" and not order.has_deadline:
        return "expired without a deadline"
    if outcome.state == "cancelled" and not told.may_be_cancelled:
        return "was cancelled by nobody"
    if outcome.state == "failed" and outcome.code not in (POISON_CODES if order.is_poison else FAIR_CODES):
        return f"failed of {outcome.code}"
    return None


def _why_wrong_for_rq(told: Told, record: Record) -> str | None:
    """Hold what RQ's own library says against what we say; RQ has no other words for an end without an answer."""
    is_finished = record.outcome is not None and record.outcome.state == "finished"
    wanted = f"finished: {told.order.expected}" if is_finished else "failed: with a reason"
    return None if record.rq == wanted else f"reads {record.rq!r} with RQ's library, not {wanted!r}"


def _refused(its: Evidence, told: Told, record: Record) -> Iterator[str]:
    """Yield where a client was told that nothing was accepted, by the very request that this job is of.

    That may be stored after the answer: it waited somewhere. It was another request if that was sent before.
    """
    for number, one in enumerate(told.tries):
        next_s = min((later.sent_s for later in told.tries[number + 1 :]), default=math.inf)
        is_its = one.sent_s - SLACK_S <= record.created_s < next_s - SLACK_S
        is_late = any(earlier.is_unknown for earlier in told.tries[:number])  # an earlier one may have arrived by now
        if not one.is_refusal or not is_its or is_late:
            continue
        ran, state = len(its.executions.get(record.job_id, [])), record.outcome and record.outcome.state
        if ran or state != "cancelled":
            yield (
                f"REFUSED: {told.order.delivery} {told.order.mark} was told {one.answer!r}, its job {record.job_id} "
                f"ran {ran} times and is {state}; all its tries, in seconds from when the job was stored: "
                + ", ".join(
                    f"{each.answer} {each.sent_s - record.created_s:.3f} to {each.heard_s - record.created_s:.3f}"
                    for each in told.tries
                )
            )


def _silent(its: Evidence, told: Told, mine: list[Record]) -> Iterator[str]:
    """Yield where a client waited on, though its job was over, or forgotten with the server's last second."""
    ended_s = [record.ended_s for record in mine if record.ended_s]
    for url, from_s, until_s in told.unanswered:
        if not its.timeline.own_s(_intake(url), from_s, until_s):
            yield f"SILENT: {told.order.delivery} {told.order.mark} was not answered at all in {until_s - from_s:.1f} s"
    for url, until_s in told.gave_up:
        calm_s = its.timeline.calm_since_s(_intake(url), until_s)
        since_s = max(calm_s, min(ended_s, default=0))
        if until_s - since_s > HEARD_S and len(ended_s) == len(mine):
            what = f"the end of its job {mine[0].job_id}" if mine else "the loss of its job"
            yield (
                f"SILENT: {told.order.delivery} {told.order.mark} was not told of {what}, {until_s - since_s:.1f} s "
                "after it and the last outage"
            )


def _intake(url: str) -> str:
    return f"intake{url.rpartition(':')[2]}"
