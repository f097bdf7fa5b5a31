"""What the rest of an intake asks of webhooks: a hook for what is accepted, and an event for what has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bitladder.process.supervision import Background
from bitladder.queue.calls.webhooks import Hook
from bitladder.queue.job_queue import JobQueue
from bitladder.routing.webhook_checks import named_webhook
from bitladder.settings.access import Caller
from bitladder.settings.intake_section import WebhookSettings
from dispatcher.metrics.intake_metrics import WebhookMetrics
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

    What is to be told of has a field `hook` in its record (`hook` makes it), and the script that ends it calls
    `add_job_event` or `add_event` of scripts/parts/webhooks.lua.
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

    def hook(self, headers: Mapping[str, str], caller: Caller, *, is_awaited: bool = False) -> str:
        """Return who is told that what a request asks for has ended; '': nobody is.

        X-Webhook-Url and X-Webhook-Secret name somebody. Without them it is whom the API key's settings name, unless
        the client awaits the answer; then the tenant's endpoints hear of it neither. Headers have lower-case names.

        Raises:
            RequestError: a header is wrong.

        """
        named = named_webhook(headers, self._queue.settings.webhooks)
        if not named and (is_awaited or self._has_none(caller)):
            return ""
        url, secret = named or ("", "")
        key = caller.key if not named and self._key_webhook(caller) else ""
        return Hook(tenant=caller.tenant, url=url, secret=secret, key=key).text()

    def know(self, tenant: str) -> None:
        """Note at once that a tenant has endpoints; other intakes see it within a second."""
        self._sender.tenants |= {tenant}

    def _has_none(self, caller: Caller) -> bool:
        return caller.tenant not in self._sender.tenants and not self._key_webhook(caller)

    def _key_webhook(self, caller: Caller) -> bool:
        key = self._queue.settings.auth.keys.get(caller.key)
        return bool(key and key.webhook)
