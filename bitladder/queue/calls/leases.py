"""Leases of workers: extend.lua renews them, reap.lua takes those of lost workers, retire.lua gives them up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from bitladder.ids import read_id
from bitladder.queue.calls.retention import retention
from bitladder.queue.claim_plan import lists_of
from bitladder.queue.run_script import Argument, Call
from bitladder.queue_name import Lane
from bitladder.settings.sections import Settings

# Jobs that one call of reap.lua or retire.lua moves; a worker with more takes several calls.
MAX_MOVED = 256


class WorkerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as Redis lists it."""

    name: str
    model: str
    tier: str
    pid: int = 0
    host: str = ""
    software: str = "bitladder"  # and its release; in the field that RQ's tools call version


# A claim whose answer may never have arrived: the job's id and the fence, as Redis has them.
Stray = tuple[bytes, bytes]


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker learns when it renews its leases."""

    now_ms: int  # server clock
    lost: list[str]  # jobs that are no longer its own
    cancelled: list[str]
    unknown: list[Stray]  # that it holds in Redis and did not name
    drain: bytes  # an operator's order to claim nothing more, as JSON; b'': none


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of reap.lua did."""

    worker: str  # whose lease ran out; '': none has
    returned: list[str]
    ended: list[str]


def extend_call(
    settings: Settings,
    worker: WorkerEntry,
    *,
    is_ready: bool,
    totals: str = "0 0 0",
    strays: Sequence[Stray] = (),
    held: Iterable[str] = (),
) -> Call:
    """Build the call of extend.lua.

    Totals: "<jobs finished> <jobs failed> <seconds of work>". Strays: what the worker holds in Redis, and the answer to
    the claim never arrived. Held: ids that the worker knows it holds.
    """
    args: list[Argument] = [
        worker.name,
        int(settings.queue.lease_s * 1000),
        int(is_ready),
        worker.model,
        worker.tier,
        _queues(settings, worker),
        worker.pid,
        worker.host,
        worker.software,
        totals,
        settings.queue.max_attempts,
        retention(settings),
        len(strays),
        *chain.from_iterable(strays),
        *held,
    ]
    return Call("extend", _keys(worker), args)


def read_renewed(answer: list[Any]) -> Renewed:
    """Read the answer of extend.lua."""
    now_ms, lost, cancelled, unknown, drain = answer
    return Renewed(
        now_ms=int(now_ms),
        lost=[read_id(job_id) for job_id in lost],
        cancelled=[read_id(job_id) for job_id in cancelled],
        unknown=list(zip(unknown[::2], unknown[1::2], strict=True)),
        drain=drain,
    )


def reap_call(settings: Settings, max_jobs: int = MAX_MOVED) -> Call:
    """Build the call of reap.lua."""
    queue = settings.queue
    args: list[Argument] = [max_jobs, queue.max_attempts, retention(settings), int(queue.lease_s * 1000)]
    return Call("reap", ["bl:workers", "rq:workers"], args)


def read_reaped(answer: list[Any]) -> Reaped:
    """Read the answer of reap.lua."""
    worker, returned, ended = answer
    return Reaped(
        worker=worker.decode(),
        returned=[read_id(job_id) for job_id in returned],
        ended=[read_id(job_id) for job_id in ended],
    )


def retire_call(settings: Settings, worker: WorkerEntry, max_jobs: int = MAX_MOVED) -> Call:
    """Build the call of retire.lua. It answers 0 while the worker still holds jobs: call it again."""
    args: list[Argument] = [worker.name, _queues(settings, worker), max_jobs, settings.queue.max_attempts]
    return Call("retire", _keys(worker), [*args, retention(settings)])


def _keys(worker: WorkerEntry) -> list[str]:
    return [
        "bl:workers",
        f"bl:live:{worker.model}:{worker.tier}",
        f"bl:inflight:{worker.name}",
        f"bl:cancel:{worker.name}",
        f"rq:worker:{worker.name}",
        "rq:workers",
    ]


def _queues(settings: Settings, worker: WorkerEntry) -> str:
    """Return the queues of the worker's own tier, as RQ's tools list them."""
    ladder, tier = settings.model(worker.model).ladder, worker.tier
    return ",".join(name for lane in Lane for name in lists_of(worker.model, ladder, tier, lane, tier))
