"""What the rest of an intake asks of webhooks: a hook for what is accepted, and an event for what has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bitladder.process.supervision import Background
from bitladder.queue.calls.webhooks import Hook, event_call
from bitladder.queue.job_queue import JobQueue
from bitladder.routing.webhook_checks import named_webhook
from bitladder.settings.access import Caller
from bitladder.settings.intake_section import WebhookSettings
from dispatcher.metrics import WebhookMetrics
from dispatcher.webhooks.deliveries import Answer
from dispatcher.webhooks.endpoint_store import Endpoints
from dispatcher.webhooks.sender import Sender

if TYPE_CHECKING:
    from dispatcher.webhooks.posting import Poster

_URL, _SECRET = "x-webhook-url", "x-webhook-secret"


def _make_poster(settings: Callable[[], WebhookSettings]) -> Poster:
    """Return what posts. Its library costs 8 MB and a tenth of a second, which intakes without webhooks are spared."""
    from dispatcher.webhooks.posting import Poster

    return Poster(settings)


class Webhooks:
    """The webhooks of one intake.

    For what ends in a script, its record has a field `hook` (`hook` makes it), and the script calls `add_job_event` or
    `add_event` of scripts/parts/webhooks.lua. What ends elsewhere is told with `enqueue`.
    """

    def __init__(self, queue: JobQueue, metrics: WebhookMetrics) -> None:
        self._queue = queue
        self.endpoints = Endpoints(queue)
        self._poster: Poster | None = None
        self._sender = Sender(queue, self.endpoints, self, metrics)

    def start(self, background: Background) -> None:
        background.start("webhooks", self._sender.run)
        background.start("watch of jobs with webhooks", self._sender.watch)

    async def aclose(self) -> None:
        if self._poster:
            await self._poster.aclose()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Post once; every failure is an answer."""
        if not (poster := self._poster):
            made = await asyncio.to_thread(_make_poster, lambda: self._queue.settings.webhooks)
            self._poster = poster = self._poster or made
        return await poster.post(url, headers, body)

    def hook(
        self,
        headers: Mapping[str, str],
        caller: Caller,
        *,
        is_awaited: bool = False,
        kind: str = "job",
        about: str = "",
    ) -> str:
        """Return who is told that what a request asks for has ended; '': nobody is.

        X-Webhook-Url and X-Webhook-Secret name somebody. Without them it is whom the API key's settings name, unless
        the client awaits the answer; then the tenant's endpoints hear of it neither. Headers have lower-case names.
        `kind`: job or response; `about`: the id that the event names, where it is not the job's.

        Raises:
            RequestError: a header is wrong.

        """
        named = named_webhook(headers, self._queue.settings.webhooks)
        if not named and (is_awaited or self._has_none(caller)):
            return ""
        url, secret = named or ("", "")
        key = caller.key if not named and self._key_webhook(caller) else ""
        return Hook(tenant=caller.tenant, url=url, secret=secret, key=key, kind=kind, about=about).text()

    def know(self, tenant: str) -> None:
        """Note at once that a tenant has endpoints; other intakes see it within a second."""
        self._sender.tenants |= {tenant}

    async def enqueue(self, event_type: str, tenant: str, about: str, hook: str = "") -> None:
        """Tell a tenant's endpoints, and whom a hook names, that something other than a job has ended.

        `event_type`: one of deliveries.EVENT_TYPES, `about`: the id of what ended, `hook`: what `hook` returned when
        that was accepted. A script that ends it does better to call `add_event` itself: then both happen, or none.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        await self._queue.run(event_call(event_type, about, hook or Hook(tenant=tenant).text()))

    def _has_none(self, caller: Caller) -> bool:
        return caller.tenant not in self._sender.tenants and not self._key_webhook(caller)

    def _key_webhook(self, caller: Caller) -> bool:
        key = self._queue.settings.auth.keys.get(caller.key)
        return bool(key and key.webhook)
