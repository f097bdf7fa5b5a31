"""What the clients saw, what Redis holds at the end, and whether the two can be true together."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.chaos.orders import Order

# What a job may fail of here; anything else is a defect.
FAIR_CODES = ("engine_fault", "worker_lost", "drained")
POISON_CODES = (*FAIR_CODES, "poison")  # of those alone that took the engine down
MARK = re.compile(rb"\bn0[0-9]{5}\b")
TERMINAL = ("finished", "failed", "cancelled", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A terminal outcome as somebody read it; `None` where that way of reading does not show a field."""

    by: str
    state: str
    text: str | None = None
    tier: str | None = None
    attempts: int | None = None
    code: str | None = None

    def contradicts(self, other: Seen) -> bool:
        pairs = zip(self.shown(), other.shown(), strict=True)
        return any(mine != its for mine, its in pairs if mine is not None and its is not None)

    def shown(self) -> tuple[str | int | None, ...]:
        return (self.state, self.text, self.tier, self.attempts, self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One job in Redis, when everything is over."""

    job_id: str
    status: str
    outcome: Seen | None
    fence: int
    uncharged: int
    content: bytes  # the call or the outcome: the job's mark is in one of them


@dataclass(slots=True)
class Told:
    """What one job's client was told, and did."""

    order: Order
    ids: set[str] = field(default_factory=set)  # under which it was accepted
    may_be_cancelled: bool = False  # its client asked for that, or left
    ran: list[Seen] = field(default_factory=list)  # outcomes that came without an id


class History:
    """Written by all clients, from several threads."""

    def __init__(self) -> None:
        self.told: dict[int, Told] = {}
        self.seen: dict[str, list[Seen]] = {}
        self.answers: Counter[str] = Counter()  # to submissions, by kind
        self.unknown: list[str] = []  # what a reader was told of a job that had been accepted
        self.is_closed = threading.Event()
        self._lock = threading.Lock()

    def begin(self, order: Order) -> Told:
        with self._lock:
            return self.told.setdefault(order.number, Told(order))

    def answered(self, order: Order, answer: str) -> None:
        with self._lock:
            self.answers[f"{order.door} {answer}"] += 1

    def accepted(self, order: Order, job_id: str) -> None:
        with self._lock:
            self.told[order.number].ids.add(job_id)
            self.seen.setdefault(job_id, [])

    def saw(self, job_id: str, seen: Seen) -> None:
        with self._lock:
            self.seen.setdefault(job_id, []).append(seen)

    def ran(self, order: Order, seen: Seen) -> None:
        """Note an outcome that came without its job's id."""
        with self._lock:
            self.told[order.number].ran.append(seen)

    def did_not_find(self, job_id: str, by: str) -> None:
        with self._lock:
            self.unknown.append(f"UNKNOWN: {by} said that it does not know job {job_id}, which had been accepted")

    def accepted_ids(self) -> list[str]:
        with self._lock:
            return [job_id for told in self.told.values() for job_id in told.ids]


def contradictions(history: History, records: Mapping[str, Record], max_attempts: int) -> Iterator[str]:
    """Yield a sentence for everything that must not be."""
    yield from history.unknown
    for told in history.told.values():
        yield from _of_client(told, records)
    for job_id, seen in history.seen.items():
        yield from _of_readers(job_id, seen, records.get(job_id))
    for record in records.values():
        yield from _of_record(record, max_attempts)
    by_mark = {told.order.mark: told for told in history.told.values()}
    for word, mine in _by_mark(records).items():
        yield from _of_mark(by_mark[word], mine)


def executions(records: Mapping[str, Record]) -> Counter[int]:
    """Count jobs by the number of attempts they were charged."""
    return Counter(record.fence - record.uncharged for record in records.values())


def _of_client(told: Told, records: Mapping[str, Record]) -> Iterator[str]:
    for job_id in told.ids:
        record = records.get(job_id)
        if record is None:
            yield f"LOST: job {job_id} ({told.order.door} {told.order.mark}) was accepted and is not stored"
        elif record.outcome is None:
            yield f"LOST: job {job_id} ({told.order.door} {told.order.mark}) never ended: it is {record.status}"
    if told.order.key and len(told.ids) > 1 and not told.may_be_cancelled:
        yield f"TWICE: key {told.order.key} was answered with {len(told.ids)} jobs: {sorted(told.ids)}"


def _of_readers(job_id: str, seen: list[Seen], record: Record | None) -> Iterator[str]:
    known = [*seen, record.outcome] if record and record.outcome else seen
    for other in known[1:]:
        if other.contradicts(known[0]):
            yield f"CHANGED: job {job_id} was {known[0]}, and then {other}"


def _of_record(record: Record, max_attempts: int) -> Iterator[str]:
    if record.outcome is None:
        yield f"UNENDED: job {record.job_id} is {record.status}"
        return
    attempts = record.fence - record.uncharged
    if not 0 <= attempts <= max_attempts:
        yield f"ATTEMPTS: job {record.job_id} was charged {attempts} of {max_attempts}"
    shown = record.outcome.attempts
    if shown and shown != attempts and record.outcome.state in ("finished", "failed"):
        yield f"ATTEMPTS: job {record.job_id} says {shown}, its fence {record.fence} less {record.uncharged}"


def _by_mark(records: Mapping[str, Record]) -> dict[str, list[Record]]:
    marks: dict[str, list[Record]] = {}
    for record in records.values():
        if found := MARK.search(record.content):
            marks.setdefault(found[0].decode(), []).append(record)
    return marks


def _of_mark(told: Told, mine: list[Record]) -> Iterator[str]:
    order, outcomes = told.order, [record.outcome for record in mine if record.outcome]
    if order.key and len(mine) > 1 and not told.may_be_cancelled:
        yield f"TWICE: key {order.key} has {len(mine)} jobs: {sorted(record.job_id for record in mine)}"
    for seen in told.ran:
        if all(seen.contradicts(outcome) for outcome in outcomes):
            yield f"CHANGED: {order.mark} was {seen}, which none of {outcomes} is"
    for outcome in outcomes:
        if why := _why_wrong(told, outcome):
            yield f"WRONG: {order.mark} {why}"


def _why_wrong(told: Told, outcome: Seen) -> str | None:
    order = told.order
    if outcome.state == "finished" and outcome.text != order.expected:
        return f"was answered {outcome.text!r}, not {order.expected!r}"
    if outcome.state == "expired" and not order.has_deadline:
        return "expired without a deadline"
    if outcome.state == "cancelled" and not told.may_be_cancelled:
        return "was cancelled by nobody"
    if outcome.state == "failed" and outcome.code not in (POISON_CODES if order.is_poison else FAIR_CODES):
        return f"failed of {outcome.code}"
    return None
