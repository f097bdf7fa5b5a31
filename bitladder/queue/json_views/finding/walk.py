"""One walk: through a list, or a registry, from the latest job on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from bitladder.ids import id_bytes
from bitladder.queue.calls.find import Entries, Entry, Slice
from bitladder.queue.json_views.finding.cursor import Cursor, Mark, digest_of
from bitladder.queue.json_views.finding.found_job import FoundJob, id_of_member, read_found
from bitladder.queue.json_views.finding.sources import TOP, Source
from bitladder.queue.signing import Signer

# Entries that one slice has at most.
_MAX_LIMIT = 128
# Numbers in a list differ by so much at most where other programs have put ids before others, or taken them.
_SHIFT = 8


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One entry that was looked at."""

    at_ms: int  # by this the walks are merged
    number: int = 0  # in its list
    member: bytes
    is_by_member: bool = False  # too many ended in the same second to tell which was last
    job: FoundJob | None  # None: none that counts lies there


class Walk(ABC):
    """Goes through one source: it says which slice it needs, and makes steps of what that holds."""

    def __init__(self, source: Source, signer: Signer) -> None:
        self.source, self._signer = source, signer
        self.steps: deque[Step] = deque()
        self._is_end = False
        self._limit = 1
        self._start, self._member = TOP, b""

    @property
    def needs(self) -> bool:
        """Whether it must read on before it can be merged with others."""
        return not self.steps and not self._is_end

    @property
    def rank(self) -> tuple[int, str]:
        """The latest comes first; of one time the source whose name does."""
        return -self.steps[0].at_ms, self.source.name

    def slice(self, limit: int) -> Slice:
        """Return what is to be read now: at least so much, and twice as much as before."""
        self._limit = max(limit, min(_MAX_LIMIT, 2 * self._limit))
        source = self.source
        return Slice(
            kind=source.kind,
            name=source.key,
            start=self._start,
            member=self._member,
            limit=self._limit,
            prefix=source.prefix,
        )

    @abstractmethod
    def take(self, read: Entries) -> None:
        """Take what a slice holds."""

    def _read(self, entry: Entry) -> FoundJob | None:
        if entry.values is None:
            return None
        job_id = id_of_member(entry.member, is_running=self.source.kind == "running")
        return read_found(job_id, self.source.lying, entry.values, self._signer)


class ListWalk(Walk):
    """Goes through a list of waiting jobs, from its last id on."""

    def __init__(self, source: Source, cursor: Cursor | None, signer: Signer) -> None:
        super().__init__(source, signer)
        self._begun_ms = self._at_ms = TOP
        self._anchor = b""
        if cursor is None:
            return
        self._begun_ms, self._at_ms = cursor.begun_ms, cursor.at_ms
        mark = cursor.lists.get(digest_of(id_bytes(source.key)))
        if mark is None:  # it was empty: what lies there has come later
            self._is_end = True
        else:
            self._start, self._anchor = mark.number, mark.digest

    def slice(self, limit: int) -> Slice:
        request = super().slice(limit)
        if not self._anchor:
            return request
        return msgspec.structs.replace(request, start=request.start + _SHIFT, limit=request.limit + 2 * _SHIFT)

    def take(self, read: Entries) -> None:
        for entry in self._behind_anchor(read.entries):
            self._add(entry)
        self._is_end = read.is_end or not read.entries
        if read.entries:
            self._start = read.entries[-1].place - 1

    def _behind_anchor(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries behind the last one that was looked at: RQ's tools may have moved it by some places."""
        anchor, self._anchor = self._anchor, b""
        if not anchor:
            return entries
        for index, entry in enumerate(entries):
            if digest_of(entry.member) == anchor:
                return entries[index + 1 :]
        return [entry for entry in entries if entry.place < self._start]

    def _add(self, entry: Entry) -> None:
        job = self._read(entry)
        if job and job.since_ms > self._begun_ms and entry.values and entry.values["wait"]:
            job = None  # the list has been emptied, and filled again
        # A job that came back lies before older ones: in its list it keeps that place.
        if job and job.since_ms:
            self._at_ms = min(self._at_ms, job.since_ms)
        self.steps.append(Step(at_ms=self._at_ms, number=entry.place, member=entry.member, job=job))


class RegistryWalk(Walk):
    """Goes through a registry, from the highest score on.

    A score is a second. The jobs of one second are put in the order that their records say, unless there are too many.
    Which order it is must be the same on every page: so the second in which the first page was read, to which more may
    have come since, is always read in whole.
    """

    def __init__(self, source: Source, cursor: Cursor | None, begun_ms: int, signer: Signer) -> None:
        super().__init__(source, signer)
        self._begun_ms = begun_ms
        self._mark = cursor.mark if cursor else Mark(TOP)
        self._held: list[Entry] = []  # of a second that is read in whole
        self._cut_score: int | None = None  # of the second that has too many
        # What is kept longer than this walk's own jobs is scored above them, and nothing has ended in the future.
        self._start = TOP if source.is_longest else source.score_of(begun_ms)
        if cursor is None:
            return
        self._start = min(self._start, source.score_of(self._mark.at_ms))
        if self._mark.source == source.name and self._mark.is_by_member:
            self._member = self._mark.member
            self._cut_score = self._start

    def take(self, read: Entries) -> None:
        self._is_end = read.is_end or not read.entries
        held, self._held = self._held, []
        for score, group in groupby((*held, *read.entries), key=lambda entry: entry.place):
            entries = list(group)
            is_cut = read.is_cut and entries[-1] is read.entries[-1]
            is_by_member = is_cut or score == self._cut_score
            if is_cut and self.source.time_of(score) + 1000 >= self._begun_ms:
                self._held = entries
            else:
                self.steps.extend(filter(self._is_behind, self._steps(score, entries, is_by_member)))
        if not read.entries:
            return
        last = read.entries[-1]
        if read.is_cut:
            self._start, self._member = last.place, last.member
            self._cut_score = None if self._held else last.place
        else:
            self._start, self._member, self._cut_score = last.place - 1, b"", None

    def _steps(self, score: int, entries: Sequence[Entry], is_by_member: bool) -> Iterator[Step]:
        """Yield the steps of one score, which is one second: in the order that the records say."""
        usual_ms = self.source.time_of(score)
        steps = []
        for entry in entries:
            job, at_ms = self._read(entry), usual_ms
            if job and not self.source.takes(score, job.ended_ms):
                job = None
            elif job and not is_by_member and usual_ms <= job.since_ms <= usual_ms + 1000:
                at_ms = job.since_ms
            steps.append(Step(at_ms=at_ms, member=entry.member, is_by_member=is_by_member, job=job))
        if not is_by_member:
            steps.sort(key=lambda step: (step.at_ms, step.member), reverse=True)
        yield from steps

    def _is_behind(self, step: Step) -> bool:
        """Return whether an earlier page has not passed over the step."""
        mark, name = self._mark, self.source.name
        if step.at_ms != mark.at_ms or name != mark.source:
            return (-step.at_ms, name) > (-mark.at_ms, mark.source)
        return step.member < mark.member
