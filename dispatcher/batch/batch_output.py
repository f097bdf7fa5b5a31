"""What a batch keeps in the store while it runs, and the files that it leaves.

They are the index of its lines, and the parts of its results, each named by the fence of the runner that wrote it: a
runner that has lost its lease overwrites nothing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from bitladder.queue.calls.upkeep import DEAD_LETTERS
from bitladder.queue.server.protocol import unreachable
from dispatcher.batch.batch_results import Line, Result, unrun_result
from dispatcher.batch.batch_state import BatchRecord, Parts, Progress
from dispatcher.batch.file_service import Files
from dispatcher.batch.line_reader import LineReader
from dispatcher.batch.object_store import ObjectMissingError

_INDEX = "index"
_READ_AT_ONCE = 64


class BatchOutput:
    """The objects of one batch."""

    def __init__(self, files: Files, record: BatchRecord) -> None:
        self._files, self._store, self._record = files, files.store, record

    async def write_index(self, index: bytes) -> None:
        """Keep the order of the lines."""
        await self._store.write(await self._key(_INDEX), _each([index]))

    async def has_index(self) -> bool:
        """Return whether the order of the lines is kept: from the check of the batch to its end."""
        try:
            return await self._store.size(await self._key(_INDEX)) >= 0
        except ObjectMissingError:
            return False

    async def reader(self) -> LineReader:
        """Return the reader of the lines.

        Raises:
            ObjectMissingError: there is no index.

        """
        index = b"".join([part async for part in self._store.stream(await self._key(_INDEX))])
        return LineReader(self._store, self._record.spec.input_key, index)

    async def write_part(self, parts: Parts, fence: int, results: Sequence[Result]) -> Parts:
        """Write results, as the runner with this fence; return the parts that there are with them."""
        last = parts[-1] if parts and parts[-1][0] == fence else (fence, 0, 0)
        counts = list(last[1:])
        for kind, is_answer in enumerate((True, False)):
            if data := [result.data for result in results if result.is_answer == is_answer]:
                counts[kind] += 1
                await self._store.write(await self._key(_part(kind, fence, counts[kind])), _each(data))
        return [*(part for part in parts if part[0] != fence), (fence, counts[0], counts[1])]

    async def forget_jobs(self, results: Sequence[Result], after_ms: int) -> None:
        """Let the jobs' records go after a while: their results are written. Dead letters stay, for operators."""
        ids = [result.line.job_id for result in results if result.is_answer]
        others = [result.line.job_id for result in results if not result.is_answer]
        client = self._files.queue.client
        try:
            if others:
                scores: Any = await client.zmscore(DEAD_LETTERS, others)
                ids += [job_id for job_id, score in zip(others, scores, strict=True) if score is None]
            async with client.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.pexpire(f"rq:job:{job_id}", after_ms)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable("cannot write to Redis", error) from error

    async def lines(self, parts: Parts, kind: int) -> AsyncIterator[bytes]:
        """Yield the results that are written: answers (0) or errors (1)."""
        for fence, *counts in parts:
            for number in range(1, counts[kind] + 1):
                async for data in self._store.stream(await self._key(_part(kind, fence, number))):
                    yield data

    async def _unrun(self, positions: Sequence[int], code: str) -> AsyncIterator[bytes]:
        """Yield what is said of the lines that were not run."""
        reader = await self.reader()
        for start in range(0, len(positions), _READ_AT_ONCE):
            for position, row, batch_line in await reader.read(positions[start : start + _READ_AT_ONCE]):
                line = Line(
                    batch_id=self._record.id, number=row.line, position=position, custom_id=batch_line.custom_id
                )
                yield unrun_result(line, code).data

    async def write_files(self, progress: Progress, left: Sequence[int], unrun: str) -> Progress:
        """Write the output file and the error file, each unless it would be empty.

        Lines that are `left` are said to be `unrun`. The files' ids are known before: whoever writes them once more
        writes the same.
        """
        has_answers, has_errors = (any(counts[kind] for _, *counts in progress.parts) for kind in (0, 1))
        output_id, error_id = progress.output_file_id, progress.error_file_id
        if has_answers and output_id:
            await self._create(output_id, "output", self.lines(progress.parts, 0))
        if (has_errors or left) and error_id:
            await self._create(error_id, "error", self._errors(progress.parts, left, unrun))
        return msgspec.structs.replace(
            progress,
            output_file_id=output_id if has_answers else None,
            error_file_id=error_id if has_errors or left else None,
        )

    async def _create(self, file_id: str, kind: str, parts: AsyncIterator[bytes]) -> None:
        kept_s = self._record.spec.output_kept_s or self._files.settings.keep_s
        await self._files.create(
            self._record.tenant,
            parts,
            purpose="batch_output",
            filename=f"{self._record.id}_{kind}.jsonl",
            expires_at=int(time.time()) + kept_s,
            file_id=file_id,
        )

    async def _errors(self, parts: Parts, left: Sequence[int], unrun: str) -> AsyncIterator[bytes]:
        async for data in self.lines(parts, 1):
            yield data
        if left:
            async for data in self._unrun(left, unrun):
                yield data

    async def delete(self) -> None:
        """Delete all that the batch keeps in the store but its files: first the index, without which nothing counts."""
        await self._store.delete(await self._key(_INDEX))
        async for stored in self._store.objects(await self._key()):
            await self._store.delete(stored.key)

    async def _key(self, name: str = "") -> str:
        return await self._files.key_of(self._record.id, name)


def _part(kind: int, fence: int, number: int) -> str:
    return f"{('answers', 'errors')[kind]}/{fence}-{number}"


async def _each(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
