"""Webhooks (scripts/webhooks): who is told of an end, events, deliveries, endpoints, and jobs that nobody looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bitladder.ids import read_id
from bitladder.queue.calls.retention import retention
from bitladder.queue.run_script import Argument, Call
from bitladder.queue_name import DEFAULT_TENANT
from bitladder.settings.sections import Settings

TARGETS = "bl:webhooks:targets"
# Destinations that one call takes, deliveries of each, and events.
MAX_TARGETS, MAX_EACH, MAX_EVENTS = 64, 8, 100
# Entries of a log, and how long one is kept.
MAX_LOGGED, LOGGED_MS = 100, 30 * 86_400_000
# Jobs of one look, and after how long one that still runs is looked at again.
MAX_WATCHED, _LOOK_AGAIN_MS = 50, 30_000


class Hook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is told that something has ended: its tenant's endpoints, and somebody named with it. A record's `hook`."""

    tenant: str = DEFAULT_TENANT
    url: str = ""  # named with the request; '': none was
    secret: str = ""  # that signs for this URL
    key: str = ""  # the API key whose settings name another URL; '': none do

    def text(self) -> str:
        """Return what a record holds."""
        return msgspec.json.encode(self).decode()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A destination's deliveries that one process has taken until the lease ends."""

    name: str
    lease: int
    deliveries: list[tuple[str, bytes]]  # id of the event, and the delivery as it is stored


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to do, as take_deliveries.lua says it."""

    age_ms: int  # of what waits longest although it is due
    disabled: int  # endpoints that are
    events: list[bytes]  # which no delivery was made of yet
    tenants: frozenset[str]  # which have endpoints
    targets: list[Target]
    has_more: bool  # whether more may be due


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt at a delivery went."""

    target: str
    event_id: str
    before: bytes  # the delivery as it was stored
    about: str  # the id that the event names
    after: bytes = b""  # as it is now; b'': it is done
    delay_ms: int = 0  # until it is due again
    entry: bytes = b""  # for the logs; b'': none
    health: str = ""  # of its endpoint: ok, failed or gone; '': it has none
    lease: int | None = None  # its end, with the last delivery of the lease


def take_call(lease_ms: int, max_targets: int, served: Sequence[str] = ()) -> Call:
    """Build the call of take_deliveries.lua; `served`: the destinations that this process serves now."""
    return Call("take_deliveries", [TARGETS], [max_targets, MAX_EACH, lease_ms, MAX_EVENTS, *served])


def read_taken(answer: Sequence[Any]) -> Taken:
    """Read the answer of take_deliveries.lua."""
    now, since, disabled, events, tenants, targets, has_more = answer
    return Taken(
        age_ms=max(0, int(now) - int(since)),
        disabled=int(disabled),
        events=list(events),
        tenants=frozenset(tenant.decode(errors="replace") for tenant in tenants),
        targets=[
            Target(name=read_id(name), lease=int(lease), deliveries=_pairs(deliveries))
            for name, lease, deliveries in targets
        ],
        has_more=bool(has_more),
    )


def _pairs(flat: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [(read_id(name), record) for name, record in zip(flat[::2], flat[1::2], strict=True)]


def deliver_call(event: bytes, max_pending: int, deliveries: Sequence[tuple[str, str, bytes]]) -> Call:
    """Build the call of add_deliveries.lua: destination, event id and delivery of each; b'' for an event: once more."""
    args: list[Argument] = [event, max_pending]
    for target, event_id, delivery in deliveries:
        args += [target, event_id, delivery]
    return Call("add_deliveries", [TARGETS], args)


def note_attempt_call(attempt: Attempt, disable_after_s: float) -> Call:
    """Build the call of note_attempt.lua."""
    args: list[Argument] = [attempt.target, attempt.event_id, attempt.before, attempt.after, attempt.delay_ms]
    args += [attempt.entry, MAX_LOGGED, LOGGED_MS, attempt.about, attempt.health, int(disable_after_s * 1000)]
    return Call("note_attempt", [TARGETS], [*args, "" if attempt.lease is None else attempt.lease])


def endpoint_keys(endpoint_id: str, tenant: str) -> list[str]:
    """Return the keys of an endpoint, and of its tenant's."""
    return [f"bl:webhooks:endpoint:{endpoint_id}", f"bl:webhooks:endpoints:{tenant}"]


def save_endpoint_call(
    endpoint_id: str, tenant: str, fields: Mapping[str, str], *, maximum: int | None, enables: bool
) -> Call:
    """Build the call of save_endpoint.lua; `maximum`: how many the tenant may have, for a new one."""
    args: list[Argument] = [endpoint_id, tenant, "" if maximum is None else maximum, int(enables)]
    for name, value in fields.items():
        args += [name, value]
    return Call("save_endpoint", endpoint_keys(endpoint_id, tenant), args)


def remove_endpoint_call(endpoint_id: str, tenant: str) -> Call:
    """Build the call of remove_endpoint.lua."""
    return Call("remove_endpoint", endpoint_keys(endpoint_id, tenant), [endpoint_id, tenant])


def watch_call(settings: Settings) -> Call:
    """Build the call of watch_jobs.lua."""
    return Call("watch_jobs", ["bl:webhooks:watched"], [MAX_WATCHED, retention(settings), _LOOK_AGAIN_MS])
