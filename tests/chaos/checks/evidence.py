"""All that is known of a run when it is over: what clients heard, Redis holds, workers executed, and was broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bitladder.queue_name import Lane, QueueName
from tests.chaos.checks.timeline import Timeline, Trouble
from tests.chaos.system.services import Life
from tests.chaos.traffic.history import History, Record, Told
from workers.engines.execution_log import Event, How, Line

# A worker renews a third of a lease before it must, and tries again as long after; half a lease of silence can cost it.
SILENT_SHARE = 0.5
# An ended process is noticed, and a loss is stamped, within so much.
NOTICED_S = 0.5
# A fence is the server's time of its claim, in steps of 10 µs.
FENCES_PER_S = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of one claim in an engine."""

    job_id: str
    fence: int
    tier: str
    pid: int
    begin_s: float
    end_s: float | None = None  # None: its worker was killed
    how: How | None = None
    queue: str = ""

    @property
    def has_yielded(self) -> bool:
        """Whether it may be a batch job that went back to its queue for a more urgent one."""
        return self.how is How.ABORTED and self.queue != "" and QueueName.parse(self.queue).lane == Lane.BATCH

    @property
    def claimed_s(self) -> float:
        """When it was claimed, which its fence says."""
        return min(self.begin_s, self.fence / FENCES_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks look at."""

    history: History
    records: Mapping[str, Record]
    executions: Mapping[str, list[Execution]]  # by job, in the order of their begins
    timeline: Timeline
    lives: Mapping[int, Life]  # of workers, by process id
    names: Mapping[str, Life]  # the same by the names they claimed under
    lease_s: float
    max_attempts: int
    is_signed: bool = False

    def of_mark(self) -> dict[str, list[Record]]:
        """Return the jobs of each order by its mark, as far as somebody was told of them or they say it."""
        told = {job_id: told.order.mark for told in self.history.told.values() for job_id in told.ids}
        marks: dict[str, list[Record]] = {}
        for record in self.records.values():
            if mark := told.get(record.job_id, record.mark):
                marks.setdefault(mark, []).append(record)
        return marks

    def by_mark(self) -> dict[str, Told]:
        return {told.order.mark: told for told in self.history.told.values()}

    def has_lost_its_lease(self, life: Life | None, since_s: float, at_s: float) -> bool:
        """Return whether others may have taken this worker's jobs meanwhile: it is gone, or was cut off by itself.

        An outage that everybody shared is no reason: whoever lives has had no chance to say so.
        """
        if life is None:
            return False
        if life.ended_s <= at_s + NOTICED_S:
            return True
        own = self.timeline.own(life.service, since_s - 2 * self.lease_s, at_s)
        return any(self._is_silent_around(one) for one in own)

    def _is_silent_around(self, trouble: Trouble) -> bool:
        since_s, until_s = trouble.begin_s - self.lease_s, trouble.end_s + self.lease_s
        return self.timeline.silence_s(trouble.target, since_s, until_s) >= SILENT_SHARE * self.lease_s


def read_executions(path: Path) -> dict[str, list[Execution]]:
    """Join the begins and ends of an execution log."""
    lines = msgspec.json.Decoder(Line).decode_lines(path.read_bytes()) if path.exists() else []
    return joined(lines)


def joined(lines: Iterable[Line]) -> dict[str, list[Execution]]:
    """Return executions by job; what began twice under one claim is there twice."""
    found: dict[str, list[Execution]] = {}
    for line in lines:
        if not line.job_id:
            continue  # a worker's own request, to see whether its engine answers
        its = found.setdefault(line.job_id, [])
        if line.event is Event.BEGIN:
            its.append(
                Execution(
                    job_id=line.job_id,
                    fence=line.fence,
                    tier=line.tier,
                    pid=line.pid,
                    begin_s=line.at_ms / 1000,
                    queue=line.queue,
                )
            )
            continue
        (at,) = [
            index for index, one in enumerate(its) if (one.fence, one.pid, one.how) == (line.fence, line.pid, None)
        ][:1]
        its[at] = replace(its[at], end_s=line.at_ms / 1000, how=line.how)
    return found
