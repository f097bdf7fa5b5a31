"""Meet the waiting jobs of RQ's producers: RQ gives them no time to live, and a claim may never come to them.

Every intake and worker sweeps; the script lets one of them through per second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bitladder.errors import QueueUnreachableError
from bitladder.ids import read_id
from bitladder.queue.calls import Call, keep
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.plan import all_lists
from bitladder.settings.sections import Settings

log = structlog.get_logger()
EVERY_S = 1.0
# Ids per sweep: a third of a millisecond of the server. 200,000 waiting jobs are gone through in a quarter of an hour.
BUNDLE = 256


def sweep_call(settings: Settings, model: str) -> Call:
    """Build the call of sweep.lua."""
    queues = all_lists(model, settings.model(model))
    # A little less than the pause between two calls of the same process, so that none of them comes for nothing.
    return Call("sweep", [f"bl:sweep:{model}"], [int(EVERY_S * 900), BUNDLE, keep(settings), *queues])


async def sweep_for_ever(queue: JobQueue, models: Sequence[str]) -> None:
    """Sweep once a second until cancelled; while Redis is unreachable, wait for it."""
    while True:
        for model in models:
            try:
                await _sweep(queue, model)
            except QueueUnreachableError as error:
                log.warning("waiting jobs not looked at", model=model, error=str(error))
            except Exception:
                log.exception("waiting jobs not looked at", model=model)  # without the sweep they would have no end
        await asyncio.sleep(EVERY_S)


async def _sweep(queue: JobQueue, model: str) -> None:
    met, ended = await queue.run(sweep_call(queue.settings, model))
    if met:
        log.info("jobs of rq's producers met", model=model, jobs=met)
    for job_id, code in ended:
        log.warning("job dead-lettered", job_id=read_id(job_id), code=code.decode())
