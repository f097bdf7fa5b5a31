"""Disks, certificates and the port of metrics."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bitladder.cli.ops.doctor.checkpoint_checks import folder_of, weight_bytes
from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, fail, in_bytes, ok, skipped, warn
from bitladder.settings.redis_section import RedisSettings

_MIB = 2**20
_SOON = datetime.timedelta(days=21)
# The validity of a certificate in DER: two times one behind the other, UTCTime (YY) or GeneralizedTime (YYYY).
_TIME = rb"(?:\x17\x0d(?P<%s_short>\d{12})|\x18\x0f(?P<%s_long>\d{14}))Z"
_VALIDITY = re.compile(_TIME.replace(b"%s", b"begin") + _TIME.replace(b"%s", b"end"))


def check_disk(examined: Examined) -> Iterator[Finding]:
    """Yield whether each folder that is written to can be, and has room."""
    settings = examined.settings
    if "://" not in settings.files.store:
        need = settings.files.max_mb * _MIB
        yield _room("disk.files", Path(settings.files.store), need, 10 * need, "files.store")
    if settings.capture.share:
        yield _room("disk.capture", Path(settings.capture.folder), 0, settings.capture.max_mb * _MIB, "capture.folder")
    if settings.worker.engine == "vllm":
        largest = max((weight_bytes(folder_of(examined, tier)) for _, tier in examined.tiers()), default=0)
        cache = Path(settings.vllm.cache_dir).expanduser()
        yield _room("disk.checkpoints", cache, 0, max(largest, 1024 * _MIB), "vllm.cache_dir")


def _room(check: str, folder: Path, need: int, roomy: int, setting: str) -> Finding:
    """Say whether a folder, or the one in which it would be made, may be written and has room."""
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    cure = f"make room, or name another folder in {setting}"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return fail(check, str(folder), f"{existing} may not be written to by this user", f"chown it, or {setting}")
    free = shutil.disk_usage(existing).free
    if free < need:
        return fail(check, str(folder), f"{in_bytes(free)} free, one upload may need {in_bytes(need)}", cure)
    if free < roomy:
        return warn(check, str(folder), f"{in_bytes(free)} free, {in_bytes(roomy)} may be needed", cure)
    return ok(check, str(folder), f"{in_bytes(free)} free")


def check_metrics_port(examined: Examined) -> Finding:
    """Say whether a worker's port of metrics is free, or held by a worker."""
    host, port = examined.settings.worker.metrics_host, examined.settings.worker.metrics_port
    name = f"{host}:{port}"
    if not port:
        return skipped(
            "ports.metrics", "worker.metrics_port", "unset: workers serve no metrics, or on a port by --metrics-from"
        )
    try:
        with socket.create_server((host, port)):
            return ok("ports.metrics", name, "free")
    except OSError as error:
        if "bitladder_" in page(f"http://{name}/metrics"):
            return ok("ports.metrics", name, "held by a worker of bitladder")
        text, cure = f"cannot be bound: {error.strerror}", "another worker.metrics_port, or --metrics-from for several"
        return (
            fail("ports.metrics", name, text, cure)
            if examined.role is Role.WORKER
            else skipped("ports.metrics", name, text)
        )


def page(url: str) -> str:
    """Return the beginning of a page of this machine; '' where none answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  (http, by the callers)
            return str(answer.read(200_000).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return error.read(20_000).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def check_tls(examined: Examined) -> Iterator[Finding]:
    """Yield when the certificates expire by which this machine and Redis know each other."""
    for part in examined.at_each_redis():
        yield from _tls(part.settings.redis)


def _tls(settings: RedisSettings) -> Iterator[Finding]:
    if not settings.url.startswith("rediss://"):
        yield skipped("tls.certificate", settings.url, "no TLS: the way to Redis is not encrypted")
        return
    for setting, file in (("redis.ca_file", settings.ca_file), ("redis.cert_file", settings.cert_file)):
        if file:
            yield from _certificates(setting, Path(file))


def _certificates(setting: str, file: Path) -> Iterator[Finding]:
    try:
        texts = re.findall(
            r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", file.read_text("ascii"), re.DOTALL
        )
        ends = [expiry(ssl.PEM_cert_to_DER_cert(text)) for text in texts]
    except (OSError, ValueError) as error:
        yield fail("tls.certificate", str(file), f"{setting} cannot be read: {error}", f"correct {setting}")
        return
    known = [end for end in ends if end]
    if not known:
        yield fail("tls.certificate", str(file), f"{setting} has no certificate", f"correct {setting}")
        return
    yield judge_expiry(str(file), min(known), datetime.datetime.now(datetime.UTC))


def judge_expiry(name: str, end: datetime.datetime, now: datetime.datetime) -> Finding:
    """Say whether a certificate is valid for some time yet."""
    shown, cure = (
        f"expires {end:%Y-%m-%d %H:%M} UTC",
        "make a new one (docs/security.md); processes read it when they connect",
    )
    if end <= now:
        return fail("tls.certificate", name, f"has expired: {shown}", cure)
    if end - now < _SOON:
        return warn("tls.certificate", name, f"{shown}, in {(end - now).days} days", cure)
    return ok("tls.certificate", name, shown)


def expiry(der: bytes) -> datetime.datetime | None:
    """Return when a certificate expires; the standard library shows that of peers only."""
    match = _VALIDITY.search(der)
    if match is None:
        return None
    if short := match["end_short"]:
        century = b"19" if int(short[:2]) >= 50 else b"20"  # RFC 5280
        return _moment(century + short)
    return _moment(match["end_long"])


def _moment(digits: bytes) -> datetime.datetime:
    return datetime.datetime.strptime(digits.decode(), "%Y%m%d%H%M%S").replace(tzinfo=datetime.UTC)
