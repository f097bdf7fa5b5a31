"""What a producer has of Redis: connections that calls share, and how a body becomes a submission."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import msgspec

from bitladder.contract import Outcome, Submission
from bitladder.endpoints import Endpoint
from bitladder.entries import Body, Entry, encode_body, read_entry
from bitladder.errors import BitladderError, QueueUnreachableError, RequestError
from bitladder.queue.calls.webhooks import Hook
from bitladder.queue.checks.rights import PRODUCER
from bitladder.queue.checks.server_check import check_server_sync
from bitladder.queue.job_record import LOST, missing
from bitladder.queue.sending.blocking import BlockingScripts
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.signing import Signer
from bitladder.queue.waiting.job_watch import JobWatch
from bitladder.queue_name import Lane
from bitladder.routing.accept import Incoming, accept
from bitladder.routing.body import endpoint_for, fields_of
from bitladder.routing.webhook_checks import named_webhook
from bitladder.settings.sections import Settings


class _Connected(Protocol):
    def close(self) -> None: ...


class Read(Protocol):
    """Makes a submission of one body, with this id or a new one."""

    def __call__(self, item: Body | Entry, job_id: str = "") -> Submission: ...


Connected = TypeVar("Connected", bound=_Connected)


class Connections:
    """Connections that no call uses: one of each kind, unless calls are nested. For one thread."""

    def __init__(self, settings: Settings) -> None:
        """Look at Redis once; one that does not answer is left to the calls.

        Raises:
            ConfigError: it can never serve.

        """
        if len(parts := settings.at_each_redis) > 1:
            settings = parts[0]  # docs/operating/several-redis.md
        self.settings, self.signer = settings, Signer(settings.queue.secrets)
        with contextlib.suppress(QueueUnreachableError), contextlib.closing(connect_sync(settings.redis)) as client:
            check_server_sync(client, settings.redis, PRODUCER)
        self._scripts: list[BlockingScripts] = []
        self._watches: list[JobWatch] = []
        self._is_closed = False

    def scripts(self) -> contextlib.AbstractContextManager[BlockingScripts]:
        """Lend what calls scripts."""
        return self._lent(self._scripts, BlockingScripts)

    def watch(self) -> contextlib.AbstractContextManager[JobWatch]:
        """Lend what hears how jobs end."""
        return self._lent(self._watches, JobWatch)

    def close(self) -> None:
        self._is_closed = True
        idle: list[_Connected] = [*self._scripts, *self._watches]
        for connected in idle:
            connected.close()

    def reader(self, lane: Lane | None, shared: dict[str, str]) -> Read:
        """Return what reads bodies: once per call, as they may be many."""
        settings = self.settings

        def read(item: Body | Entry, job_id: str = "") -> Submission:
            body, headers = read_entry(item, shared) if isinstance(item, Entry) else (item, shared)
            raw = encode_body(body)
            named = item.endpoint if isinstance(item, Entry) else None
            endpoint = _endpoint(named) if named else endpoint_for(body if isinstance(body, dict) else fields_of(raw))
            incoming = Incoming(endpoint=endpoint, body=raw, headers=headers, request_id="", lane=lane, job_id=job_id)
            job = accept(incoming, settings).submission
            if webhook := named_webhook(headers, settings.webhooks):
                hook = Hook(url=webhook[0], secret=webhook[1]).text()
                job = msgspec.structs.replace(job, hook=hook)
            return job

        return read

    def told_apart(self, job_id: str, outcome: Outcome | BitladderError) -> Outcome | BitladderError:
        """Return what is known of a job: of a missing record, whether it has expired or never was."""
        return missing(job_id, self.settings.queue.result_ttl_s) if outcome is LOST else outcome

    @contextlib.contextmanager
    def _lent(self, idle: list[Connected], connect: Callable[[Settings], Connected]) -> Iterator[Connected]:
        """Use an idle connection, or a new one where an open iterator has the other."""
        connected = idle.pop() if idle else connect(self.settings)
        try:
            yield connected
        finally:
            idle.append(connected)
            if self._is_closed:
                connected.close()


def _endpoint(path: str) -> Endpoint:
    try:
        return Endpoint(path)
    except ValueError:
        known = ", ".join(endpoint for endpoint in Endpoint if endpoint.row.method == "POST")
        raise RequestError(f"the endpoint must be one of {known}, got {path[:80]!r}", param="endpoint") from None
