"""The sockets of an intake, bound before anything else starts: an address that cannot be had is one line."""

from __future__ import annotations

import errno
import socket
from typing import Any

from bitladder.errors import ConfigError
from bitladder.settings.intake_section import IntakeSettings

# Connections that wait to be accepted, as uvicorn has it.
_BACKLOG = 2048
# A machine without IPv6 may know an address of that kind for a name as localhost all the same.
_LACKING = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def bound_sockets(settings: IntakeSettings) -> list[socket.socket]:
    """Return a socket that listens for each address that `intake.host` stands for, and this machine has.

    Raises:
        ConfigError: the host is unknown or not this machine's, or the port is in use.

    """
    host, port = settings.host, settings.port
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"intake.host: there is no address for {host!r}: {error}") from error
    listeners: list[socket.socket] = []
    lacking: tuple[Any, OSError] | None = None
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in addresses):
        try:
            listeners.append(_listening(family, address))
        except OSError as error:
            if error.errno not in _LACKING:
                for listener in listeners:
                    listener.close()
                raise _refused(address, error) from error
            lacking = address, error
    if lacking and not listeners:
        raise _refused(*lacking)
    return listeners


def _listening(family: int, address: Any) -> socket.socket:  # noqa: ANN401  (of the family)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        # Now, as SO_REUSEADDR lets several bind one address: whoever comes early waits until requests are served.
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _refused(address: Any, error: OSError) -> ConfigError:  # noqa: ANN401  (as above)
    shown = f"{address[0]}:{address[1]}"
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"intake.port: {shown} is in use by another process; name a free port")
    return ConfigError(f"intake.host: cannot listen on {shown}: {error.strerror}")
