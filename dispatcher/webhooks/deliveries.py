"""Events and deliveries: what is said to whom, and when again. No I/O."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from bitladder.ids import read_word, readable
from bitladder.queue.calls.webhooks import Hook
from bitladder.script_constants import RESPONSE_PREFIX

JOB_STATES = ("finished", "failed", "cancelled", "expired")
# The types that an endpoint may ask for; OpenAI's first.
EVENT_TYPES = (
    *(f"response.{end}" for end in ("completed", "failed", "cancelled", "incomplete")),
    *(f"batch.{end}" for end in ("completed", "failed", "expired", "cancelled")),
    *(f"job.{state}" for state in JOB_STATES),
)
_RESPONSE_ENDS = {"finished": "completed", "failed": "failed", "cancelled": "cancelled", "expired": "failed"}
_MAX_ERROR_CHARS = 300


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something has ended."""

    id: str
    type: str
    created_at: int
    about: str  # the id of what has ended
    job_id: str  # the same, as Redis has it
    hook: Hook

    def payload(self) -> bytes:
        """Return the body of its deliveries, in OpenAI's form."""
        return payload(self.id, self.type, self.created_at, self.about)


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to one destination, as it is stored while it waits."""

    type: str
    created_at: int
    about: str
    tenant: str
    attempts: int = 0
    url: str = ""  # of a destination that is named with the request, and its secret
    secret: str = ""
    key: str = ""  # the API key whose settings name the destination


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver answered."""

    status_code: int | None  # None: nothing, and `error` says why
    error: str | None
    duration_ms: int
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a delivery."""

    event_id: str
    type: str
    about: str
    created_at: int
    endpoint: str | None  # None: named with the request, or by the API key's settings
    host: str
    attempt: int
    at: float  # seconds since 1970
    duration_ms: int
    status_code: int | None  # None: there was no answer
    error: str | None
    result: Literal["delivered", "retrying", "failed"]
    next_attempt_at: float | None
    tenant: str


def payload(event_id: str, event_type: str, created_at: int, about: str) -> bytes:
    """Return the body of a delivery."""
    content = {"id": event_id, "object": "event", "type": event_type, "created_at": created_at, "data": {"id": about}}
    return msgspec.json.encode(content)


def read_event(line: bytes, *, status: str = "") -> Event:
    """Read an event as scripts note it: "<ms> <state of a job, or type> <id> <hook>".

    An event's id follows from the line, so that every process gives it the same. `status`: what the engine's answer
    says of itself, where it is a response.

    Raises:
        ValueError: it is none.

    """
    at_ms, word, raw_id, raw_hook = line.split(b" ", 3)
    hook, name = msgspec.json.decode(raw_hook, type=Hook), word.decode()
    job_id = read_word(raw_id)
    is_response = job_id.startswith(RESPONSE_PREFIX)
    return Event(
        id=f"evt_{hashlib.sha256(line).hexdigest()[:32]}",
        type=name if "." in name else _type(name, status) if is_response else f"job.{name}",
        created_at=int(at_ms) // 1000,
        about=readable(job_id),
        job_id=job_id,
        hook=hook,
    )


def _type(state: str, status: str) -> str:
    """Return the type of a response's event; the engine may have answered that it is incomplete or has failed."""
    is_other = state == "finished" and status in ("incomplete", "failed")
    return f"response.{status if is_other else _RESPONSE_ENDS[state]}"


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, as far as an event must know it."""

    id: str
    url: str
    event_types: frozenset[str]


def deliveries_of(event: Event, endpoints: Sequence[Subscriber]) -> list[tuple[str, str, bytes]]:
    """Return destination, event id and delivery for all who want to know of an event; no URL hears of it twice."""
    hook = event.hook
    fitting = {endpoint.url: endpoint.id for endpoint in endpoints if event.type in endpoint.event_types}
    made = [(target, _delivery(event)) for target in fitting.values()]
    if hook.url and hook.url not in fitting:
        made.append((destination(hook.tenant, hook.url), _delivery(event, url=hook.url, secret=hook.secret)))
    if hook.key:
        made.append((f"key_{hook.key}", _delivery(event, key=hook.key)))
    return [(target, event.id, msgspec.json.encode(delivery)) for target, delivery in made]


def _delivery(event: Event, *, url: str = "", secret: str = "", key: str = "") -> Delivery:
    return Delivery(
        type=event.type,
        created_at=event.created_at,
        about=event.about,
        tenant=event.hook.tenant,
        url=url,
        secret=secret,
        key=key,
    )


def destination(tenant: str, url: str) -> str:
    """Return the name under which a tenant's deliveries to one server wait, whatever their paths."""
    origin = "\0".join((tenant, *urlsplit(url)[:2]))
    return f"url_{tenant}_{hashlib.sha256(origin.encode()).hexdigest()[:24]}"


def pause_s(schedule: Sequence[float], attempts: int, retry_after_s: float | None) -> float | None:
    """Return after how long a delivery is tried again that has failed so often; None: it is given up.

    Up to a tenth longer by chance: what failed together does not come back together. A server's Retry-After is obeyed
    where it asks for more, up to the longest pause.
    """
    if attempts > len(schedule):
        return None
    usual = schedule[attempts - 1] * random.uniform(1, 1.1)  # noqa: S311  (jitter)
    return max(usual, min(retry_after_s or 0.0, max(schedule)))


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After; a date is left to the schedule."""
    raw = headers.get("Retry-After", "")
    return float(raw) if raw.isascii() and raw.isdigit() and len(raw) < 10 else None


def cut(text: str) -> str:
    """Return the beginning of an error for the log."""
    return text if len(text) <= _MAX_ERROR_CHARS else f"{text[:_MAX_ERROR_CHARS]}…"
