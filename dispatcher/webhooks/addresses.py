"""Where a webhook may go: URLs are looked at when they are named, addresses when they are connected to.

A client names the URL, and the intake stands where the client does not: without these checks it would post to what
only the intake can reach (server-side request forgery).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from bitladder.errors import RequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_URL_CHARS = 2048
# IPv4 addresses in IPv6 ones: of gateways that translate (RFC 6052, RFC 8215).
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class RefusedAddressError(OSError):
    """The address is one that webhooks may not reach."""


def is_allowed(raw: str, networks: Sequence[str]) -> bool:
    """Return whether a webhook may be sent to an address: a public one, or one in these networks."""
    address = _innermost(ipaddress.ip_address(raw.partition("%")[0]))
    if any(address in ipaddress.ip_network(network) for network in networks):
        return True
    return address.is_global and not address.is_multicast and not address.is_reserved


def _innermost(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def check_url(url: str, networks: Sequence[str], *, allows_http: bool, param: str) -> None:
    """Check a URL that a client names. Its name is resolved when it is connected to, each time.

    Raises:
        RequestError: it is none that a webhook may have.

    """
    if problem := _problem(url, networks, allows_http=allows_http):
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
        return "must not lead to a private or reserved address (webhooks.allowed_networks has exceptions)"
    is_loopback = address.is_loopback if address else host == "localhost"
    if parts.scheme == "http" and not allows_http and not is_loopback:
        return "must begin with https:// (webhooks.allow_http)"
    return None


def _as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
