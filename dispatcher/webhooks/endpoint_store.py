"""Endpoints of webhooks, as Redis has them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import uuid_utils
from redis.exceptions import RedisError

from bitladder.errors import NotFoundError, RequestError
from bitladder.queue.calls.webhooks import endpoint_keys, remove_endpoint_call, save_endpoint_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.protocol import unreachable
from dispatcher.webhooks.deliveries import LogEntry, Subscriber
from dispatcher.webhooks.signatures import new_secret

_OVERLAP_S = 86_400  # how long the secret before the last one signs, too, where that is asked for


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint."""

    id: str
    tenant: str
    name: str
    url: str
    event_types: tuple[str, ...]
    secret: str
    created_at: int
    updated_at: int
    old_secret: str = ""
    old_secret_until: int = 0
    failing_since: int | None = None
    disabled_at: int | None = None
    disabled_by: str = ""  # gone: it answered with 410; failed: for too long

    @property
    def secrets(self) -> tuple[str, ...]:
        """What signs now."""
        return (self.secret, self.old_secret) if self.old_secret_until > time.time() else (self.secret,)


class Endpoints:
    """The endpoints of all tenants."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def create(self, tenant: str, name: str, url: str, event_types: Sequence[str]) -> Endpoint:
        """Make an endpoint.

        Raises:
            RequestError: the tenant has as many as it may.

        """
        endpoint_id, maximum = f"we_{uuid_utils.uuid7().hex}", self._queue.settings.webhooks.max_endpoints
        fields = {"name": name, "url": url, "event_types": " ".join(event_types), "secret": new_secret()}
        call = save_endpoint_call(endpoint_id, tenant, fields, maximum=maximum, enables=False)
        if await self._queue.run(call) == b"full":
            raise RequestError(f"a tenant may have {maximum} webhook endpoints ([webhooks].max_endpoints): delete one")
        return await self.read(endpoint_id)

    async def update(self, endpoint: Endpoint, fields: Mapping[str, str], *, enables: bool) -> Endpoint:
        """Change some of an endpoint."""
        call = save_endpoint_call(endpoint.id, endpoint.tenant, fields, maximum=None, enables=enables)
        if await self._queue.run(call) == b"missing":
            raise _missing(endpoint.id)
        return await self.read(endpoint.id)

    async def rotate(self, endpoint: Endpoint, *, keeps_old: bool) -> Endpoint:
        """Give an endpoint a new secret; the old one signs beside it for a day, or no longer."""
        until = int(time.time()) + _OVERLAP_S if keeps_old else 0
        old = {"old_secret": endpoint.secret if keeps_old else "", "old_secret_until": str(until)}
        return await self.update(endpoint, {"secret": new_secret()} | old, enables=False)

    async def delete(self, endpoint: Endpoint) -> None:
        await self._queue.run(remove_endpoint_call(endpoint.id, endpoint.tenant))

    async def read(self, endpoint_id: str) -> Endpoint:
        """Read one endpoint.

        Raises:
            NotFoundError: there is none with this id.

        """
        endpoint = _endpoint(endpoint_id, await self._execute("HGETALL", endpoint_keys(endpoint_id, "")[0]))
        if endpoint is None:
            raise _missing(endpoint_id)
        return endpoint

    async def ids(self, tenant: str) -> list[str]:
        """Return a tenant's endpoints, the latest first."""
        ids = await self._execute("ZREVRANGE", endpoint_keys("", tenant)[1], 0, -1)
        return [raw.decode(errors="replace") for raw in ids or ()]

    async def subscribers(self, tenant: str) -> list[Subscriber]:
        """Return whom a tenant's events are sent to."""
        enabled = [endpoint for endpoint in await self.all(tenant) if endpoint.disabled_at is None]
        return [
            Subscriber(id=endpoint.id, url=endpoint.url, event_types=frozenset(endpoint.event_types))
            for endpoint in enabled
        ]

    async def all(self, tenant: str, ids: Sequence[str] | None = None) -> list[Endpoint]:
        """Read a tenant's endpoints, or those of these ids; what is deleted meanwhile is left out."""
        endpoints = []
        for endpoint_id in await self.ids(tenant) if ids is None else ids:
            fields = await self._execute("HGETALL", endpoint_keys(endpoint_id, "")[0])
            endpoints.append(_endpoint(endpoint_id, fields))
        return [endpoint for endpoint in endpoints if endpoint and endpoint.tenant == tenant]

    async def log(self, endpoint_id: str) -> list[LogEntry]:
        """Return the last attempts at deliveries to an endpoint, the latest first."""
        return await self._log(f"bl:webhooks:log:{endpoint_id}")

    async def log_about(self, object_id: str) -> list[LogEntry]:
        """Return the last attempts at deliveries that named an id, whatever their destination."""
        return await self._log(f"bl:webhooks:about:{object_id}")

    async def _log(self, key: str) -> list[LogEntry]:
        entries = await self._execute("LRANGE", key, 0, -1)
        return [read for entry in entries or () if (read := _log_entry(entry))]

    async def _execute(self, *command: str | int) -> Any:  # noqa: ANN401  (each command has an answer of its own)
        try:
            return await self._queue.client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
        except (RedisError, OSError) as error:
            if str(error).startswith("WRONGTYPE"):  # another program's key: as if there was none
                return None
            raise unreachable("cannot read webhooks from Redis", error) from error


def _missing(endpoint_id: str) -> NotFoundError:
    return NotFoundError(f"there is no webhook endpoint {endpoint_id[:80]!r}", param="webhook_endpoint_id")


def _log_entry(raw: bytes) -> LogEntry | None:
    """Read an entry; None: another program wrote it."""
    try:
        return msgspec.json.decode(raw, type=LogEntry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _endpoint(endpoint_id: str, raw: Mapping[bytes, bytes] | None) -> Endpoint | None:
    """Read an endpoint; None: there is none, or another program wrote it."""
    fields = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in (raw or {}).items()}
    try:
        return _read_fields(endpoint_id, fields) if "url" in fields else None
    except ValueError:
        return None


def _read_fields(endpoint_id: str, fields: Mapping[str, str]) -> Endpoint:
    return Endpoint(
        id=endpoint_id,
        tenant=fields.get("tenant", ""),
        name=fields.get("name", ""),
        url=fields["url"],
        event_types=tuple(fields.get("event_types", "").split()),
        secret=fields.get("secret", ""),
        created_at=_seconds(fields, "created_at") or 0,
        updated_at=_seconds(fields, "updated_at") or 0,
        old_secret=fields.get("old_secret", ""),
        old_secret_until=int(fields.get("old_secret_until") or 0),
        failing_since=_seconds(fields, "failing_since"),
        disabled_at=_seconds(fields, "disabled_at"),
        disabled_by=fields.get("disabled_by", ""),
    )


def _seconds(fields: Mapping[str, str], name: str) -> int | None:
    return int(fields[name]) // 1000 if name in fields else None
