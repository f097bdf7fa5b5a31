"""Gather the evidence of a run that is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import redis

from tests.chaos.checks.evidence import Evidence, read_executions
from tests.chaos.checks.timeline import Timeline
from tests.chaos.system.scene import Kind, Scene, execution_log
from tests.chaos.traffic.history import History, Record
from tests.chaos.traffic.orders import Delivery
from tests.chaos.traffic.readers import records, rq_says


def gather(its: Scene, history: History, timeline: Timeline, folder: Path, kind: Kind) -> Evidence:
    """Read Redis, the execution log and the logs of the workers."""
    lives = [life for service in its.fleet.workers for life in service.lives]
    queue = its.settings.queue
    return Evidence(
        history=history,
        records=_with_rq(its.store, history, records(its.store, its.signer)),
        executions=read_executions(execution_log(folder)),
        timeline=timeline,
        lives={life.pid: life for life in lives},
        names={name: life for life in lives for name in life.worker_names()},
        lease_s=queue.lease_s,
        max_attempts=queue.max_attempts,
        is_signed=kind.is_signed,
    )


def _with_rq(store: redis.Redis, history: History, stored: dict[str, Record]) -> dict[str, Record]:
    """Ask RQ's own library about the jobs of RQ's clients."""
    theirs = {job_id for told in history.told.values() if told.order.delivery is Delivery.RQ for job_id in told.ids}
    asked = {
        job_id: replace(stored[job_id], rq=rq_says(store, job_id))
        for job_id in theirs & stored.keys()
        if stored[job_id].outcome
    }
    return stored | asked
