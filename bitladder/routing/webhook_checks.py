"""What a request may name as its webhook: where to post, and the secret that signs.

A client names the URL, and the intake stands where the client does not: without these checks it would post to what only
the intake can reach (server-side request forgery). Addresses are checked again for each connection that is made
(dispatcher/webhooks/posting.py).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from bitladder.errors import RequestError
from bitladder.settings.intake_section import WebhookSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_URL_CHARS = 2048
SECRET_PREFIX = "whsec_"  # noqa: S105  (what each begins with)
# What Standard Webhooks allows.
_MIN_BYTES, _MAX_BYTES = 24, 64
_URL, _SECRET = "X-Webhook-Url", "X-Webhook-Secret"
# IPv4 addresses in IPv6 ones: of gateways that translate (RFC 6052, RFC 8215).
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class RefusedAddressError(OSError):
    """The address is one that webhooks may not reach."""


def is_allowed(raw: str, networks: Sequence[str]) -> bool:
    """Return whether a webhook may be sent to an address: a public one, or one in these networks."""
    address = _innermost(ipaddress.ip_address(raw.partition("%")[0]))
    if any(address in ipaddress.ip_network(network) for network in networks):
        return True
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local  # fec0::/10: RFC 3879
    return address.is_global and not (address.is_multicast or address.is_reserved or is_site_local)


def _innermost(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def named_webhook(headers: Mapping[str, str], settings: WebhookSettings) -> tuple[str, str] | None:
    """Return the URL and the secret that a request names; None: it names none. Headers have lower-case names.

    Raises:
        RequestError: one is wrong, or missing beside the other.

    """
    url, secret = headers.get("x-webhook-url", ""), headers.get("x-webhook-secret", "")
    if not url and not secret:
        return None
    if not url:
        raise RequestError(f"{_SECRET} needs {_URL} beside it", param=_SECRET)
    check_url(url, settings, param=_URL)
    try:
        read_secret(secret)
    except ValueError as error:
        raise RequestError(f"{_SECRET} {error}: it signs what is posted", param=_SECRET) from None
    return url, secret


def read_secret(text: str) -> bytes:
    """Return a secret's key.

    Raises:
        ValueError: it is none; the message does not repeat it.

    """
    try:
        key = (
            base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True) if text.startswith(SECRET_PREFIX) else b""
        )
    except binascii.Error:
        key = b""
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(f"must be {SECRET_PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} random bytes")
    return key


def check_url(url: str, settings: WebhookSettings, *, param: str) -> None:
    """Check a URL that a client names. Its name is resolved when it is connected to, each time.

    Raises:
        RequestError: it is none that a webhook may have.

    """
    if problem := _problem(url, settings.allowed_networks, allows_http=settings.allow_http):
        raise RequestError(f"{param} {problem}", param=param)


def _problem(url: str, networks: Sequence[str], *, allows_http: bool) -> str | None:
    if not 0 < len(url) <= MAX_URL_CHARS or not (url.isascii() and url.isprintable()) or set(url) & set(' "<>\\^`{|}'):
        return f"must be a URL of at most {MAX_URL_CHARS} printable ASCII characters, without blanks and quotes"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"must be a URL: {error}"
    if parts.scheme not in ("http", "https") or not host:
        return "must begin with https:// and a host"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "must have no user, password or fragment"
    address = _as_address(host)
    if address and not is_allowed(host, networks):
        return f"must not lead to a private or reserved address: webhooks.allowed_networks may allow {host}"
    is_loopback = address.is_loopback if address else host == "localhost"
    if parts.scheme == "http" and not allows_http and not is_loopback:
        return "must begin with https://, unless the intake has webhooks.allow_http"
    return None


def _as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
