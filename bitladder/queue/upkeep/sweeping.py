"""The sweep: finds waiting jobs of RQ's producers. RQ gives them no time to live, and a claim may never reach them.

Every intake and worker sweeps; the script runs for one of them per second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls.upkeep import SWEEP_EVERY_S, read_swept, sweep_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.outage import OUTAGE

log = structlog.get_logger()


async def sweep_for_ever(queue: JobQueue, models: Sequence[str]) -> None:
    """Sweep once a second until cancelled; while Redis is unreachable, wait for it."""
    while True:
        for model in models:
            try:
                await _sweep(queue, model)
            except QueueUnreachableError as error:
                OUTAGE.warn("waiting jobs not swept", model=model, error=str(error))
            except Exception:
                log.exception("waiting jobs not swept", model=model)  # without the sweep they would have no end
        await asyncio.sleep(SWEEP_EVERY_S)


async def _sweep(queue: JobQueue, model: str) -> None:
    swept = read_swept(await queue.run(sweep_call(queue.settings, model)))
    if swept.met:
        log.info("jobs of rq's producers met", model=model, jobs=swept.met)
    for job_id, code in swept.ended:
        log.warning("job dead-lettered", job_id=job_id, code=code)
