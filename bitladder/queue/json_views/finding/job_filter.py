"""Which jobs are looked for: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec

from bitladder.contract import State
from bitladder.errors import RequestError
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue_name import Lane, QueueName
from bitladder.settings.sections import Settings

# Thirty years.
MAX_AGE_S = 1e9
MAX_CHARS = 512

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CHARS)]


class JobFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which jobs; what is not named may be anything."""

    state: tuple[State, ...] = ()  # one of them; (): any
    model: Word | None = None
    tier: Word | None = None  # that serves or served it; of one that waits: its queue's
    lane: Lane | None = None
    tenant: Word | None = None
    tag: Word | None = None
    batch: Word | None = None
    key: Word | None = None  # the Idempotency-Key of its request
    older_than: Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE_S)] | None = None  # seconds in its state
    error: Word | None = None  # the code that it ended with

    @property
    def digest(self) -> bytes:
        """The same for equal filters, and no other: a cursor goes on with the filter that it came from."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).digest()

    @property
    def is_empty(self) -> bool:
        """Whether it takes every job."""
        return self == JobFilter()

    def has_state(self, *states: State) -> bool:
        """Return whether it takes jobs in one of these states."""
        return not self.state or any(state in self.state for state in states)

    def has_queue(self, queue: QueueName) -> bool:
        """Return whether it takes jobs of a queue; `tier` is not asked, as another may serve them."""
        return (self.model is None or queue.model == self.model) and (self.lane is None or queue.lane == self.lane)

    def matches(self, job: FoundJob, now_ms: int) -> bool:
        return (
            (not self.state or job.state in self.state)
            and self.has_queue(job.queue)
            and (self.tier is None or job.tier == self.tier)
            and (self.tenant is None or job.tenant == self.tenant)
            and (self.tag is None or self.tag in job.labels.tags)
            and (self.batch is None or job.batch == self.batch)
            and (self.key is None or job.key == self.key)
            and (self.older_than is None or job.since_ms < now_ms - self.older_than * 1000)
            and (self.error is None or (job.outcome is not None and job.outcome.code == self.error))
        )

    def checked(self, *parts: Settings) -> JobFilter:
        """Return the filter; `parts`: the settings at each Redis that is looked at.

        Raises:
            RequestError: it names a model or a tier that is not configured.

        """
        models = {name: section for part in parts for name, section in part.models.items()}
        if self.model is not None and self.model not in models:
            raise _wrong("model", f"one of {', '.join(models)}", self.model)
        tiers = [name for model, section in models.items() if self.model in (None, model) for name in section.ladder]
        if self.tier is not None and self.tier not in tiers:
            raise _wrong("tier", f"one of {', '.join(dict.fromkeys(tiers))}", self.tier)
        return self


def read_filter(values: Iterable[tuple[str, str]]) -> JobFilter:
    """Read a filter of names and texts, as a query has them; `state` may be there several times, or have commas.

    Raises:
        RequestError: one is wrong; `param` names it.

    """
    read: dict[str, Any] = {}
    for name, value in values:
        if name not in _READERS:
            raise RequestError(f"there is no filter {name[:40]!r}: expected some of {', '.join(_READERS)}", param=name)
        if name in read and name != "state":
            raise RequestError(f"{name} must be there once", param=name)
        expected, reader = _READERS[name]
        try:
            chosen = reader(value)
        except ValueError:
            raise _wrong(name, expected, value) from None
        read[name] = read.get(name, ()) + chosen if name == "state" else chosen
    return JobFilter(**read)


def _wrong(name: str, expected: str, value: str) -> RequestError:
    return RequestError(f"{name} must be {expected}, got {value[:80]!r}", param=name)


def _text(value: str) -> str:
    if not 1 <= len(value) <= MAX_CHARS:
        raise ValueError(value)
    return value


def _states(value: str) -> tuple[State, ...]:
    return tuple(State(word) for word in dict.fromkeys(value.split(",")))


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0 <= seconds <= MAX_AGE_S:
        raise ValueError(value)
    return seconds


def _words(words: Iterable[str]) -> str:
    return f"one of {', '.join(words)}"


_TEXT: tuple[str, Callable[[str], Any]] = (f"1 to {MAX_CHARS} characters", _text)
_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "state": (f"{_words(State)}, or several of them divided by commas", _states),
    "model": _TEXT,
    "tier": _TEXT,
    "lane": (_words(Lane), Lane),
    "tenant": _TEXT,
    "tag": _TEXT,
    "batch": _TEXT,
    "key": _TEXT,
    "older_than": (f"a number of seconds from 0 to {MAX_AGE_S:g}", _seconds),
    "error": _TEXT,
}
FILTERS = tuple(_READERS)
