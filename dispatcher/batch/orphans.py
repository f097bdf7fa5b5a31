"""Delete what nobody reads any more: files that have expired, and objects in the store whose record is gone.

An object's key says whose it is, `<store name>/<id>…`: it may stay as long as there is a record of that id,
`bl:file:file-…` or `bl:batch:batch_…`. What was written lately stays in any case: its record may be on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.queue.calls.kept_files import ENDS, file_key, read_file
from bitladder.queue.server.outage import OUTAGE
from dispatcher.batch.file_service import Files, answer_of

log = structlog.get_logger()
_EVERY_S = 60.0
# Of several intakes, one looks for orphans.
_ORPHANS_EVERY_S, _TURN = 3600, "bl:file_sweep"
_MIN_AGE_S = 86_400.0
_AT_ONCE = 100


async def sweep_files_for_ever(files: Files) -> None:
    """Sweep until cancelled; what fails is tried again."""
    while True:
        for sweep in (delete_expired, _delete_orphans_in_turn):
            await _logged(sweep, files)
        await asyncio.sleep(_EVERY_S)


async def _logged(sweep: Callable[[Files], Awaitable[int]], files: Files) -> None:
    try:
        count = await sweep(files)
    except QueueUnreachableError as error:
        OUTAGE.warn("files not swept", error=str(error))
    except BitladderError as error:
        log.warning("files not swept", error=str(error))
    else:
        if count:
            log.info("files deleted", count=count, sweep=sweep.__name__)


async def delete_expired(files: Files) -> int:
    """Delete files that have expired; return how many."""
    client, deleted = files.queue.client, 0
    while ids := await answer_of(client.zrangebyscore(ENDS, 0, time.time(), start=0, num=_AT_ONCE)):
        for file_id in ids:
            record = read_file(await answer_of(client.get(file_key(file_id.decode(errors="replace")))))
            if record is not None and record.id.encode() == file_id:
                deleted += await files.delete(record)
            else:  # another program has deleted or spoiled it
                await answer_of(client.zrem(ENDS, file_id))
    return deleted


async def _delete_orphans_in_turn(files: Files) -> int:
    is_ours = await answer_of(files.queue.client.set(_TURN, "", nx=True, ex=_ORPHANS_EVERY_S))
    return await delete_orphans(files) if is_ours else 0


async def delete_orphans(files: Files) -> int:
    """Delete objects whose record is gone; return how many."""
    deleted, newest = 0, time.time() - _MIN_AGE_S
    if not (store_name := await files.store_name()):
        return 0
    async for entry in files.store.objects(store_name):
        owner = entry.key.split("/")[1]
        record = f"bl:{owner.partition('-')[0].partition('_')[0]}:{owner}"
        if entry.written_s < newest and not await answer_of(files.queue.client.exists(record)):
            await files.store.delete(entry.key)
            deleted += 1
    return deleted
