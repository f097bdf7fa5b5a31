"""Drain a worker, or every worker of a tier, from anywhere."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from msgspec import Meta

from bitladder.errors import NotFoundError, RequestError
from bitladder.queue.calls.steering import DrainOrder, Note, drain_call, read_names
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.steering.pausing import Reason
from bitladder.queue.pauses import known_tier, only_model
from bitladder.queue.untrusted import short

WorkerName = Annotated[str, Meta(min_length=1, max_length=300)]
_KEEP = "Stay idle instead of ending: until `resume`, or the worker's end."


class WorkerOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which workers are to claim nothing more: one by its name, or all of a tier that live now."""

    worker: WorkerName | None = None
    model: str | None = None
    tier: str | None = None
    keep: Annotated[bool, Meta(description=_KEEP)] = False
    resume: Annotated[bool, Meta(description="Take the order back, from workers that were kept.")] = False
    reason: Reason = ""
    dry_run: Annotated[bool, Meta(description="Only say which.")] = False


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that were ordered."""

    dry_run: bool
    keep: bool
    workers: list[str]


async def drain(queue: JobQueue, order: WorkerOrder, operator: str) -> Drained:
    """Order workers to end what they have, claim nothing more, and end or stay idle; or take that back.

    Raises:
        RequestError: it names no worker and no tier, or both.
        NotFoundError: there is no such worker, tier or model.

    """
    if (order.worker is None) == (order.tier is None):
        raise RequestError("name a worker, or a tier, and not both", param="worker")
    model = tier = ""
    if order.tier is not None:
        model = only_model(queue.settings, order.model)
        tier = known_tier(queue.settings, model, order.tier)
    what = "resume workers" if order.resume else "drain and keep" if order.keep else "drain"
    note = Note(operator=operator, what=what, on=order.worker or f"tier:{model}:{tier}", reason=order.reason)
    text = msgspec.json.encode(
        DrainOrder(keep=order.keep, since=int(time.time() * 1000), operator=operator, reason=order.reason)
    )
    call = drain_call(
        model=model,
        tier=tier,
        worker=order.worker or "",
        order="" if order.resume else text.decode(),
        dry_run=order.dry_run,
        note=note,
    )
    names = read_names(await queue.run(call))
    if order.worker and not names and not order.resume:
        raise NotFoundError(
            f"there is no live worker {short(order.worker)!r}: `bitladder workers` lists them", param="worker"
        )
    return Drained(dry_run=order.dry_run, keep=order.keep, workers=names)
