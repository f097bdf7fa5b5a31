"""Finding jobs: job_sizes.lua and job_slices.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec

from bitladder.ids import id_bytes
from bitladder.queue.run_script import Argument, Call
from bitladder.queue.untrusted import read_number

# What is read of a record; the first one is there in every record.
FIELDS = (
    "status",
    "origin",
    "wait",
    "tenant",
    "labels",
    "created_at",
    "enqueued_at",
    "started_at",
    "ended_at",
    "fence",
    "uncharged",
    "worker_name",
    "idem",
    "outcome",
)
# Outcomes of jobs that did not finish are read as far as they are no longer than this.
_MAX_OUTCOME = 16 * 1024
# What stands for a longer one.
OMITTED = b"-"
Kind = Literal["list", "running", "ended"]


class ListSize(msgspec.Struct, frozen=True):
    """A list in which jobs wait."""

    length: int
    leftovers: int
    last_number: int

    @property
    def waiting(self) -> int:
        return max(0, self.length - self.leftovers)


class QueueSizes(msgspec.Struct, frozen=True):
    """How many jobs of a queue run, and have ended how, by RQ's words."""

    running: int
    finished: int
    failed: int
    canceled: int


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs lie where."""

    now_ms: int  # server clock
    names: Sequence[str]  # in RQ's list of queues
    lists: Mapping[str, ListSize]
    queues: Mapping[str, QueueSizes]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries of a list or registry are read."""

    kind: Kind
    name: str  # of the list, or the registry's key
    start: int  # the highest number, or score
    member: bytes = b""  # of those with this score only the ones behind it
    limit: int
    prefix: str = ""  # how ids begin of which the record is read


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a list or registry."""

    member: bytes
    place: int  # its number in the list, or its score
    values: Mapping[str, bytes] | None  # of its record; None: there is none that counts


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    """What a slice holds."""

    is_end: bool
    is_cut: bool = False  # it ends within a score that too many have to be read together
    entries: Sequence[Entry]


def sizes_call(lists: Sequence[str], queues: Sequence[str], max_names: int = 0) -> Call:
    """Build the call of job_sizes.lua; `max_names` of RQ's list of queues are returned."""
    return Call("job_sizes", [], [max_names, len(lists), *map(id_bytes, lists), *map(id_bytes, queues)])


def read_sizes(answer: list[Any], lists: Sequence[str], queues: Sequence[str]) -> Sizes:
    """Read the answer of job_sizes.lua."""
    now, names, list_rows, queue_rows = answer
    return Sizes(
        now_ms=int(now),
        names=[name.decode("utf-8", "surrogateescape").removeprefix("rq:queue:") for name in names],
        lists={name: ListSize(*map(int, row)) for name, row in zip(lists, list_rows, strict=True)},
        queues={name: QueueSizes(*map(int, row)) for name, row in zip(queues, queue_rows, strict=True)},
    )


def slices_call(slices: Sequence[Slice]) -> Call:
    """Build the call of job_slices.lua."""
    args: list[Argument] = [_MAX_OUTCOME, len(FIELDS), *FIELDS]
    args.extend(
        chain.from_iterable((s.kind, id_bytes(s.name), s.start, s.member, s.limit, id_bytes(s.prefix)) for s in slices)
    )
    return Call("job_slices", [], args)


def read_slices(answer: list[Any]) -> list[Entries]:
    """Read the answer of job_slices.lua: the first slices, one at least."""
    return [
        Entries(is_end=bool(is_end), is_cut=bool(is_cut), entries=[_entry(*row) for row in rows])
        for is_end, is_cut, *rows in answer
    ]


def _entry(member: bytes, place: bytes, values: Sequence[bytes] | None = None) -> Entry:
    fields = None if values is None else dict(zip(FIELDS, values, strict=True))
    return Entry(member=member, place=read_number(place) or 0, values=fields)
