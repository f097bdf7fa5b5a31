"""What the clients asked, were told and saw, and what Redis holds of each job at the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.traffic.orders import Order

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
    at_s: float = field(default_factory=time.time, compare=False)

    def contradicts(self, other: Seen) -> bool:
        pairs = zip(self.shown(), other.shown(), strict=True)
        return any(mine != its for mine, its in pairs if mine is not None and its is not None)

    def shown(self) -> tuple[str | int | None, ...]:
        return (self.state, self.text, self.tier, self.attempts, self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """One execution that came to nothing, as the job's record remembers it."""

    at_s: float
    worker: str
    fence: int
    code: str  # why
    attempts: int  # that were counted by then, this one included where it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One job in Redis, when everything is over."""

    job_id: str
    status: str
    outcome: Seen | None
    fence: int
    uncharged: int
    mark: str | None = None  # of its order, where the call, the outcome or the job's key still says it
    lost: tuple[Lost, ...] = ()
    worker: str = ""  # the last one that claimed it
    created_s: float = 0.0
    ended_s: float = 0.0
    deadline_s: float | None = None
    unbegun: int = 0  # how often it came back because no engine had begun it
    floor: str | None = None  # as the policy chose it, where the outcome says so
    rq: str | None = None  # of a job of RQ's clients: what RQ itself says became of it

    @property
    def attempts(self) -> int:
        return self.fence - self.uncharged


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One request of a client, and its answer."""

    sent_s: float
    heard_s: float
    answer: str
    # Whether it says that nothing was accepted: the client may send it again elsewhere, or forget it.
    is_refusal: bool = False
    is_unknown: bool = False  # no answer, or one that leaves it open


@dataclass(slots=True)
class Told:
    """What one job's client was told, and did."""

    order: Order
    ids: dict[str, Try] = field(default_factory=dict)  # under which it was accepted, each with the first who said so
    tries: list[Try] = field(default_factory=list)
    may_be_cancelled: bool = False  # its client asked for that, or left
    cancelled_s: float | None = None  # when its client was told that it will not run
    gave_up: list[tuple[str, float]] = field(default_factory=list)  # where, and when, after waiting for an outcome
    unanswered: list[tuple[str, float, float]] = field(default_factory=list)  # a submission: where, and when
    ran: list[Seen] = field(default_factory=list)  # outcomes that came without an id
    gone: list[tuple[float, float]] = field(default_factory=list)  # when it asked, and was told that the job is gone


class History:
    """Written by all clients, from several threads."""

    def __init__(self) -> None:
        self.told: dict[int, Told] = {}
        self.seen: dict[str, list[Seen]] = {}
        self.answers: Counter[str] = Counter()  # to submissions, by kind
        self.unknown: list[tuple[str, str, float]] = []  # job, and who said that it does not know it, and when
        self.incomplete: list[tuple[str, str, float]] = []  # the same of streams that are not stored as a whole
        self.found: list[str] = []  # what a client saw at once to be wrong
        self.went_back: list[tuple[float, float, str]] = []  # what is wrong unless the server forgot something then
        self.count: Counter[str] = Counter()  # of what was done and read
        self.is_closed = threading.Event()
        self.is_open = threading.Event()  # while it is not, nobody submits anything
        self.is_open.set()
        self._lock = threading.Lock()
        self._accepted: list[str] = []

    def begin(self, order: Order) -> Told:
        with self._lock:
            return self.told.setdefault(order.number, Told(order))

    async def opened(self) -> None:
        """Wait until jobs may be submitted."""
        while not self.is_open.is_set():
            await asyncio.sleep(0.1)

    def tried(self, order: Order, its: Try) -> None:
        with self._lock:
            self.answers[f"{order.delivery} {its.answer}"] += 1
            self.told[order.number].tries.append(its)

    def accepted(self, order: Order, job_id: str, sent_s: float) -> None:
        with self._lock:
            ids = self.told[order.number].ids
            if job_id not in ids:
                ids[job_id] = Try(sent_s=sent_s, heard_s=time.time(), answer="accepted")
                self._accepted.append(job_id)
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
            self.unknown.append((job_id, by, time.time()))

    def read_to_end(self, job_id: str, by: str, outcome: Seen | None, gone: str | None) -> None:
        """Note the last word of a stream, if there was one."""
        if gone == "job_lost":
            self.did_not_find(job_id, by)
        elif gone is not None:
            with self._lock:
                self.incomplete.append((job_id, by, time.time()))
        elif outcome is not None:
            self.saw(job_id, outcome)

    def take(self, found: list[str], went_back: list[tuple[float, float, str]]) -> None:
        """Note what a reader of a stream found."""
        with self._lock:
            self.found += found
            self.went_back += went_back

    def find(self, *found: str) -> None:
        with self._lock:
            self.found += found

    def did(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.count[what] += count

    def accepted_ids(self) -> list[str]:
        with self._lock:
            return list(self._accepted)

    def accepted_count(self) -> int:
        return len(self._accepted)
