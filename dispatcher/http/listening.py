"""The sockets of an intake, bound before anything else starts: an address that cannot be had is one line."""

from __future__ import annotations

import errno
import socket
from typing import Any

from bitladder.errors import ConfigError
from bitladder.settings.intake_section import IntakeSettings


def bound_sockets(settings: IntakeSettings) -> list[socket.socket]:
    """Return a socket for each address that `intake.host` stands for.

    Raises:
        ConfigError: the host is unknown or not this machine's, or the port is in use.

    """
    host, port = settings.host, settings.port
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"intake.host: there is no address for {host!r}: {error}") from error
    return [_bound(family, address) for family, address in dict.fromkeys((entry[0], entry[4]) for entry in addresses)]


def _bound(family: int, address: Any) -> socket.socket:  # noqa: ANN401  (of the family)
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        shown = f"{address[0]}:{address[1]}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"intake.port: {shown} is in use by another process; name a free port") from error
        raise ConfigError(f"intake.host: cannot listen on {shown}: {error.strerror}") from error
    return listener
