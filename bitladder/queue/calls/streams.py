"""The chunks of a streamed answer: emit.lua stores and publishes them, chunks.lua reads them."""

from __future__ import annotations

from collections.abc import Sequence

from bitladder.contract import Chunk, Emitted
from bitladder.queue.run_script import Call
from bitladder.queue.untrusted import read_number
from bitladder.settings.sections import Settings

# Bytes of a stream per read: what a slow reader has before it, beside its inbox.
MAX_READ = 128 * 1024


def emit_call(settings: Settings, worker: str, chunks: Sequence[tuple[str, Chunk]]) -> Call:
    """Build the call of emit.lua for chunks by job id."""
    flat = [field for job_id, chunk in chunks for field in (job_id, chunk.fence, chunk.number, chunk.data)]
    follows = " ".join([f"{place}:{chunk.after}" for place, (_, chunk) in enumerate(chunks, 1) if chunk.after])
    return Call("emit", [], [worker, settings.queue.result_ttl_s * 1000, follows, *flat])


def read_emitted(answer: list[int]) -> list[Emitted]:
    """Read the answer of emit.lua: what became of each chunk."""
    return [Emitted(number) for number in answer]


def chunks_call(job_id: str, fence: int, number: int) -> Call:
    """Build the call of chunks.lua for the chunks behind this one."""
    return Call("chunks", [], [job_id, f"{fence}-{number}", MAX_READ])


def read_chunks(answer: list[bytes]) -> list[Chunk]:
    """Read the answer of chunks.lua."""
    return [_chunk(*fields) for fields in zip(answer[::3], answer[1::3], answer[2::3], strict=True)]


def _chunk(entry: bytes, data: bytes, after: bytes) -> Chunk:
    fence, _, number = entry.partition(b"-")
    return Chunk(fence=int(fence), number=int(number), data=data, after=read_number(after) or 0)
