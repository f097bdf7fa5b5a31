"""Whether a request comes from a web page, and from whose."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit


def is_foreign_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether some web page sends it that is not this intake's own.

    Its own has the origin that the request goes to, by an address or as localhost: a name could be made to lead here by
    whoever owns it (DNS rebinding), and then any page of theirs would have that origin too.
    """
    origin = host = None
    for name, value in headers:
        if name == b"origin":
            origin = value
        elif name == b"host":
            host = value
    if origin is None:
        return False
    try:
        url = urlsplit(origin.decode("latin-1"))
        is_fixed = url.hostname == "localhost" or bool(ipaddress.ip_address(url.hostname or ""))
    except ValueError:
        return True
    return not is_fixed or url.netloc.encode("latin-1") != host
