"""Deliver what is due: every intake looks, and a lease keeps two from sending the same at once.

A delivery is done when its receiver has answered with a success and Redis knows it. Whatever is killed between these
two is sent again by another: at least once, always with the same webhook-id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import structlog

from bitladder.contract import Outcome
from bitladder.errors import NotFoundError, QueueUnreachableError
from bitladder.queue.calls.webhooks import (
    MAX_TARGETS,
    MAX_WATCHED,
    Attempt,
    Target,
    deliver_call,
    note_attempt_call,
    read_taken,
    take_call,
    watch_call,
)
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.outage import OUTAGE
from bitladder.settings.intake_section import WebhookSettings
from dispatcher.metrics.intake_metrics import WebhookMetrics
from dispatcher.webhooks.deliveries import (
    Answer,
    Delivery,
    Event,
    LogEntry,
    Subscriber,
    deliveries_of,
    pause_s,
    payload,
    read_event,
)
from dispatcher.webhooks.endpoint_store import Endpoint, Endpoints
from dispatcher.webhooks.signatures import signed_headers

log = structlog.get_logger()
_LOOK_EVERY_S, _WATCH_EVERY_S = 1.0, 5.0
# Beside the time that a receiver has: what a busy process may need for the rest.
_LEASE_MARGIN_S = 5.0
# An intake that is stopped leaves deliveries this long to end, less than its tasks have; what is left another sends.
_DRAIN_S = 1.5
_GONE = 410


class _Whereto(msgspec.Struct, frozen=True):
    """Where a delivery goes, and what signs it."""

    url: str
    secrets: Sequence[str]
    endpoint: Endpoint | None = None


class Poster(Protocol):
    """What posts (posting.py)."""

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Post once; every failure is an answer."""
        ...


class Sender:
    """The deliveries of one intake."""

    def __init__(self, queue: JobQueue, endpoints: Endpoints, poster: Poster, metrics: WebhookMetrics) -> None:
        self._queue, self._endpoints, self._poster, self._metrics = queue, endpoints, poster, metrics
        self._sending: dict[asyncio.Task[None], str] = {}  # -> the destination
        self._has_room = asyncio.Event()  # a destination has been served: there may be more for it
        self.tenants: frozenset[str] = frozenset()  # which have endpoints

    @property
    def _settings(self) -> WebhookSettings:
        return self._queue.settings.webhooks

    async def run(self) -> None:
        """Look for work until cancelled; while Redis is unreachable, wait for it."""
        try:
            while True:
                try:
                    has_more = await self._look()
                except QueueUnreachableError as error:
                    has_more = False
                    OUTAGE.warn("webhooks not sent", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0 if has_more else _LOOK_EVERY_S):
                        await self._has_room.wait()
        finally:
            await self._drain()

    async def watch(self) -> None:
        """End jobs with webhooks whose deadline has passed while nobody looks, until cancelled."""
        while True:
            has_more = False
            try:
                has_more = len(await self._queue.run(watch_call(self._queue.settings))) == MAX_WATCHED
            except QueueUnreachableError as error:
                OUTAGE.warn("jobs with webhooks not watched", error=str(error))
            await asyncio.sleep(0 if has_more else _WATCH_EVERY_S)

    async def _look(self) -> bool:
        """Take what is due; return whether there may be more at once."""
        self._has_room.clear()
        lease_ms = int((self._settings.timeout_s + _LEASE_MARGIN_S) * 1000)
        free = MAX_TARGETS - len(self._sending)
        taken = read_taken(await self._queue.run(take_call(lease_ms, free, list(self._sending.values()))))
        self.tenants = taken.tenants
        self._metrics.backlog_age.set(taken.age_ms / 1000)
        self._metrics.disabled.set(taken.disabled)
        for target in taken.targets:
            task = asyncio.create_task(self._serve(target))
            self._sending[task] = target.name
            task.add_done_callback(self._sending.pop)
        subscribers = _Subscribers(self._endpoints, taken.tenants)
        for line in taken.events:
            try:
                await self._spread(line, subscribers)
            except QueueUnreachableError:
                raise
            except Exception:
                log.exception("event for webhooks not delivered")  # it stays, and must not keep those behind it
        return bool(taken.events) or taken.has_more

    async def _drain(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=_DRAIN_S)
        for task in self._sending:
            task.cancel()

    async def _spread(self, line: bytes, subscribers: _Subscribers) -> None:
        """Make deliveries of an event: all, or where another intake was quicker none."""
        made: list[tuple[str, str, bytes]] = []
        try:
            event = read_event(line)
            if event.type == "response.completed" and (status := await self._status(event)):
                event = read_event(line, status=status)
            made = deliveries_of(event, await subscribers.of(event.hook.tenant))
        except (ValueError, KeyError) as error:
            log.warning("event for webhooks cannot be read", error=str(error))
        dropped = await self._queue.run(deliver_call(line, self._settings.max_pending, made))
        if dropped > 0:
            self._metrics.deliveries("dropped").inc(dropped)
            log.warning("webhooks dropped", count=dropped, reason="too many wait for their receiver", type=event.type)

    async def _status(self, event: Event) -> str:
        """Return what a response says of itself; '' where it is no longer stored."""
        (outcome,) = await self._queue.look([event.job_id])
        if not isinstance(outcome, Outcome) or outcome.answer is None:
            return ""
        try:
            return msgspec.json.decode(outcome.answer, type=_Response).status
        except msgspec.DecodeError:
            return ""

    async def _serve(self, target: Target) -> None:
        """Send what was taken for one destination, side by side; the last of it ends the lease."""
        left = len(target.deliveries)

        async def send(event_id: str, stored: bytes) -> None:
            nonlocal left
            attempt = await self._try(target.name, event_id, stored)
            left -= 1
            await self._settle(msgspec.structs.replace(attempt, lease=None if left else target.lease))

        sent = (send(event_id, stored) for event_id, stored in target.deliveries)
        for error in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(error, QueueUnreachableError):
                OUTAGE.warn("how webhooks went is not noted, they are sent again", error=str(error))
            elif isinstance(error, Exception):  # the lease runs out, and they are due again
                log.error("webhook not sent", target=target.name, exc_info=error)
        self._has_room.set()

    async def _settle(self, attempt: Attempt) -> None:
        result = await self._queue.run(note_attempt_call(attempt, self._settings.disable_after_s))
        if result == b"disabled":
            why = "it answered with status 410" if attempt.health == "gone" else "it has failed for too long"
            log.warning("webhook endpoint disabled", endpoint=attempt.target, reason=why)

    async def _try(self, target: str, event_id: str, stored: bytes) -> Attempt:
        """Make one attempt, and say what becomes of the delivery."""
        attempt = Attempt(target=target, event_id=event_id, before=stored, about="")
        try:
            delivery = msgspec.json.decode(stored, type=Delivery)
        except msgspec.DecodeError as error:
            log.warning("webhook dropped", reason=f"its delivery cannot be read: {error}", target=target)
            return attempt
        whereto = await self._whereto(target, delivery)
        if whereto is None:
            self._metrics.deliveries("dropped").inc()
            log.warning("webhook dropped", reason="its endpoint or API key is gone", target=target, type=delivery.type)
            return attempt
        body = payload(event_id, delivery.type, delivery.created_at, delivery.about)
        at_s = time.time()
        try:
            urlsplit(whereto.url)
            headers = signed_headers(event_id, int(at_s), body, whereto.secrets)
        except ValueError as error:
            log.warning("webhook dropped", reason=f"its URL or secret is none: {error}", target=target)
            return attempt
        answer = await self._poster.post(whereto.url, headers, body)
        delivery = msgspec.structs.replace(delivery, attempts=delivery.attempts + 1)
        pause = None
        if not answer.is_success and answer.status_code != _GONE:
            pause = pause_s(self._settings.retry_s, delivery.attempts, answer.retry_after_s)
        entry = _entry(event_id, delivery, whereto, answer, at_s, pause)
        self._metrics.deliveries(entry.result).inc()
        return msgspec.structs.replace(
            attempt,
            about=delivery.about,
            after=b"" if pause is None else msgspec.json.encode(delivery),
            delay_ms=int((pause or 0) * 1000),
            entry=msgspec.json.encode(entry),
            health=_health(answer, whereto.endpoint),
        )

    async def _whereto(self, target: str, delivery: Delivery) -> _Whereto | None:
        """Return where a delivery goes now; None: nowhere any more."""
        if delivery.url:
            return _Whereto(delivery.url, (delivery.secret,))
        if delivery.key:
            key = self._queue.settings.auth.keys.get(delivery.key)
            return _Whereto(key.webhook.url, (key.webhook.secret.get_secret_value(),)) if key and key.webhook else None
        try:
            endpoint = await self._endpoints.read(target)
        except NotFoundError:
            return None
        return _Whereto(endpoint.url, endpoint.secrets, endpoint)


class _Subscribers:
    """Endpoints of tenants, each tenant's read once."""

    def __init__(self, endpoints: Endpoints, tenants: frozenset[str]) -> None:
        self._endpoints, self._tenants = endpoints, tenants
        self._read: dict[str, list[Subscriber]] = {}

    async def of(self, tenant: str) -> list[Subscriber]:
        if tenant not in self._read:
            self._read[tenant] = await self._endpoints.subscribers(tenant) if tenant in self._tenants else []
        return self._read[tenant]


class _Response(msgspec.Struct):
    status: str = ""


def _health(answer: Answer, endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return ""
    return "ok" if answer.is_success else "gone" if answer.status_code == _GONE else "failed"


def _entry(
    event_id: str, delivery: Delivery, whereto: _Whereto, answer: Answer, at_s: float, pause: float | None
) -> LogEntry:
    return LogEntry(
        event_id=event_id,
        type=delivery.type,
        about=delivery.about,
        created_at=delivery.created_at,
        endpoint=whereto.endpoint.id if whereto.endpoint else None,
        host=urlsplit(whereto.url).netloc,
        attempt=delivery.attempts,
        at=round(at_s, 3),
        duration_ms=answer.duration_ms,
        status_code=answer.status_code,
        error=answer.error,
        result="delivered" if answer.is_success else "failed" if pause is None else "retrying",
        next_attempt_at=None if pause is None else round(time.time() + pause, 3),
        tenant=delivery.tenant,
    )
