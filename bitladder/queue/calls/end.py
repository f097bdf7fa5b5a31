"""Ending jobs, or putting them back into a queue: finish.lua, requeue.lua, cancel.lua and expire.lua."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from bitladder.contract import Claimed, Outcome, State
from bitladder.queue.calls.retention import retention
from bitladder.queue.run_script import Argument, Call
from bitladder.queue.scripted_ends import SCRIPTED
from bitladder.queue.signing import Signer
from bitladder.script_constants import DEADLINE_PASSED, HAD_COME_BACK, MAX_TROUBLE
from bitladder.settings.sections import Settings


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended, and its outcome."""

    job: Claimed
    outcome: Outcome
    return_value: str = ""  # base64 of JSON, for jobs enqueued by RQ
    is_dead_letter: bool = False  # an operator should look at it: it goes to the dead letters


class RequeueReason(StrEnum):
    """Why a job goes back to a queue, or ends without having run. It says whether that costs an attempt."""

    UNCHARGED = "uncharged"  # nothing ran, or nothing is to blame: no attempt counted
    CHARGED = "charged"  # an attempt counted
    CRASHED = "crashed"  # it was in an engine that crashed, and may be the cause: no attempt counted
    REAPED = "reaped"  # its worker was lost: an attempt counted; only reap.lua gives this reason
    UNBEGUN = "unbegun"  # its worker was lost, or broke, before the engine began: counted from the fourth time on
    # These end a job that no engine has begun: no attempt counted.
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class Requeued(msgspec.Struct, frozen=True, kw_only=True):
    """A job that goes back to a queue."""

    job: Claimed
    target: str  # the queue
    reason: RequeueReason
    last: Outcome  # its outcome if it ends instead
    kept: Outcome | None = None  # an answer that it has, for the case that it gets no other


class Doubtful(msgspec.Struct, frozen=True, kw_only=True):
    """A job of which it is not known whether it was accepted: what is needed to withdraw it."""

    job_id: str
    queue: str
    tenant: str
    channel: str = ""  # where only its former client heard of it: it is kept where others do by now; '': in any case


def finished_bytes(item: Finished) -> int:
    """Return about how many bytes one job takes in a call of finish.lua."""
    return len(item.outcome.body) + len(item.return_value)


def finish_call(settings: Settings, signer: Signer, worker: str, jobs: Sequence[Finished]) -> Call:
    """Build the call of finish.lua."""
    args: list[Argument] = [worker, retention(settings)]
    for item in jobs:
        job, outcome = item.job, item.outcome
        state = "dead" if item.is_dead_letter else str(outcome.state)
        value = item.return_value or ("-" if job.is_rq else "")
        args += [job.job_id, job.queue, job.fence, state, signer.encode(job.job_id, outcome), value]
    return Call("finish", [f"bl:inflight:{worker}"], args)


def read_finished(answer: list[int]) -> list[bool]:
    """Return for each job whether its outcome was accepted: its worker may have lost it."""
    return [bool(accepted) for accepted in answer]


def requeue_call(settings: Settings, signer: Signer, worker: str, item: Requeued) -> Call:
    """Build the call of requeue.lua."""
    job, last = item.job, item.last
    args: list[Argument] = [
        worker,
        job.job_id,
        job.fence,
        job.queue,
        item.target,
        item.reason,
        settings.queue.max_attempts,
        signer.encode(job.job_id, last),
        retention(settings),
        _in_ascii(f"{last.code}: {last.error}"),
        "" if last.cost is None else last.cost,
        signer.encode(job.job_id, item.kept) if item.kept else b"",
    ]
    return Call("requeue", [f"bl:inflight:{worker}"], args)


def cancel_call(
    settings: Settings, signer: Signer, job_id: str, withdrawn: Doubtful | None = None, *, forgets: bool = False
) -> Call:
    """Build the call of cancel.lua; `withdrawn`: for a job that may not have arrived yet; `forgets`: to delete it."""
    why = ": nobody could come back for it" if withdrawn else ""
    about = [withdrawn.queue, withdrawn.tenant, withdrawn.channel] if withdrawn else ["", "", ""]
    return _cancel(settings, signer, job_id, why, [*about, "1" if forgets else "", ""])


def stop_call(settings: Settings, signer: Signer, job_id: str, *, only_waiting: bool) -> Call:
    """Build the call of cancel.lua by which an operator cancels a job; `only_waiting`: one that runs goes on."""
    return _cancel(settings, signer, job_id, " by an operator", ["", "", "", "", "1" if only_waiting else ""])


def _cancel(settings: Settings, signer: Signer, job_id: str, why: str, more: Sequence[str]) -> Call:
    outcome = Outcome(state=State.CANCELLED, status=409, code="cancelled", error=f"the job was cancelled{why}")
    return Call("cancel", [f"rq:job:{job_id}"], [job_id, signer.encode(job_id, outcome), retention(settings), *more])


def expire_call(settings: Settings, signer: Signer, job_id: str, trouble: bytes) -> Call:
    """Build the call of expire.lua; `trouble`: why the job came back from its last execution, b'' if it did not."""
    outcome = SCRIPTED["deadline_exceeded"]
    if trouble:
        words = _in_ascii(trouble[:MAX_TROUBLE].decode(errors="replace"))
        outcome = msgspec.structs.replace(outcome, error=DEADLINE_PASSED + HAD_COME_BACK + words)
    return Call("expire", [f"rq:job:{job_id}"], [job_id, signer.encode(job_id, outcome), retention(settings)])


def read_word(answer: Any) -> str:  # noqa: ANN401  (what redis-py returns)
    """Read an answer that is one word: of requeue.lua and cancel.lua."""
    return str(answer.decode())


def _in_ascii(text: str) -> str:
    """Return the beginning of a text in printable ASCII."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:MAX_TROUBLE])
