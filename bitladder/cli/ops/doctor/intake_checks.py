"""What an intake needs: its port, its keys, and a store of files that it may write, read and delete in."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from structlog.testing import capture_logs

from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, fail, ok, skipped, warn
from bitladder.cli.ops.doctor.machine_checks import check_metrics_port, page
from bitladder.errors import BitladderError, ConfigError
from bitladder.settings.access import KeySettings
from dispatcher.auth import is_key_required
from dispatcher.batch.object_store import Store
from dispatcher.batch.store_choice import open_store
from dispatcher.http.listening import bound_sockets

_SOON = timedelta(days=14)
_PROBE = b"bitladder doctor"


def check_ports(examined: Examined) -> Iterator[Finding]:
    """Yield whether the ports are free, or held by processes of ours."""
    settings = examined.settings.intake
    name = f"{settings.host}:{settings.port}"
    if examined.role is not Role.INTAKE:
        yield skipped("ports.intake", name, f"the role {examined.role} has none")
    else:
        yield _intake_port(examined, name)
    yield check_metrics_port(examined)


def _intake_port(examined: Examined, name: str) -> Finding:
    settings = examined.settings.intake
    try:
        for listener in bound_sockets(settings):
            listener.close()
    except ConfigError as error:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  (asked, not bound)
        answer = page(f"http://{host}:{settings.port}{settings.root_path}/readyz")
        if '"live_workers"' in answer:
            return ok("ports.intake", name, "held by an intake of bitladder, which is ready")
        if '"code"' in answer and '"error"' in answer:
            return ok("ports.intake", name, "held by an intake of bitladder, which is not ready")
        return fail(
            "ports.intake", name, str(error), "another intake.port, or end the process that holds it (ss -ltnp)"
        )
    return ok("ports.intake", name, "free")


def check_keys(examined: Examined) -> Iterator[Finding]:
    """Yield whether who reaches the intake needs a key, and which keys expire."""
    settings = examined.settings
    if examined.role is not Role.INTAKE:
        yield skipped("keys.required", "API keys", f"the role {examined.role} reads none")
        return
    try:
        with capture_logs() as logged:
            is_required = is_key_required(settings)
    except ConfigError as error:
        yield fail("keys.required", "API keys", str(error), "bitladder keys new --tenant NAME --scopes submit,read")
        return
    host = settings.intake.host
    if logged:
        text = f"intake.host is {host}, which other machines can reach, and no key is required"
        yield fail("keys.required", "API keys", text, "leave auth.required out, and bitladder keys new --tenant NAME")
    elif not is_required:
        yield ok("keys.required", "API keys", f"none is required: only this machine reaches {host}")
    else:
        yield ok("keys.required", "API keys", f"required; {len(settings.auth.keys)} keys")
    yield from judge_keys(settings.auth.keys, datetime.now(UTC))


def judge_keys(keys: Mapping[str, KeySettings], now: datetime) -> Iterator[Finding]:
    """Yield which keys have expired or will soon."""
    expired = sorted(name for name, key in keys.items() if key.expires and key.expires <= now)
    ending = sorted(name for name, key in keys.items() if key.expires and now < key.expires <= now + _SOON)
    if keys and len(expired) == len(keys):
        text, cure = "every key has expired: no request is taken", "bitladder keys new --tenant NAME"
        yield fail("keys.expiry", "API keys", text, cure)
    elif expired:
        text = f"expired: {', '.join(expired[:10])}"
        yield warn("keys.expiry", "API keys", text, f"bitladder keys revoke {expired[0]}, once no client uses it")
    if ending:
        text = f"expire within {_SOON.days} days: {', '.join(ending[:10])}"
        yield warn("keys.expiry", "API keys", text, "bitladder keys new for their clients")


def check_store(examined: Examined) -> list[Finding]:
    """Write, read and delete an object in the store of files, as an intake would."""
    place = examined.settings.files.store
    if "://" not in place and not Path(place).is_dir():
        return [skipped("store.rights", place, "there is no such folder yet: an intake makes it (see disk.files)")]
    if examined.role is not Role.INTAKE:
        return [skipped("store.rights", place, f"the role {examined.role} keeps no files")]
    try:
        return [asyncio.run(_probe(place))]
    except BitladderError as error:
        cure = "correct files.store, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        return [fail("store.rights", place, str(error), cure)]


async def _probe(place: str) -> Finding:
    store = open_store(place)
    key = f"doctor/{secrets.token_hex(8)}"
    step = "write"
    try:
        await store.write(key, _parts())
        step = "read"
        is_same = await store.read(key, 0, len(_PROBE)) == _PROBE
        step = "list"
        is_listed = await _is_listed(store, key)
        step = "delete"
        await store.delete(key)
    except BitladderError as error:
        text, cure = (
            f"an object cannot be {step}: {error}".replace("write:", "written:"),
            "allow it in the bucket's policy",
        )
        return fail("store.rights", place, text, cure)
    finally:
        await store.aclose()
    if not (is_same and is_listed):
        text = "an object that was written is not read back, or not listed"
        return fail("store.rights", place, text, "use a store that is consistent after a write")
    return ok("store.rights", place, "an object was written, read, listed and deleted")


async def _parts() -> AsyncIterator[bytes]:
    yield _PROBE


async def _is_listed(store: Store, key: str) -> bool:
    return any([entry.key == key async for entry in store.objects(key.partition("/")[0])])
