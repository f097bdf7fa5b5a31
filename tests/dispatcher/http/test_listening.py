"""An intake has its port from the moment that it says so, at each address that there is."""

from __future__ import annotations

import contextlib
import socket

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.intake_section import IntakeSettings
from dispatcher.http.listening import bound_sockets
from tests.conftest import free_port


def test_a_second_intake_is_refused_also_while_the_first_one_waits_for_redis() -> None:
    settings = IntakeSettings(port=free_port())
    (first,) = bound_sockets(settings)

    with contextlib.closing(first), pytest.raises(ConfigError, match=r"intake\.port: .* is in use by another process"):
        bound_sockets(settings)


def test_an_address_of_a_host_that_this_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    # As localhost in a container without IPv6, whose /etc/hosts has ::1 all the same.
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)

    (listener,) = bound_sockets(IntakeSettings(host="localhost", port=port))

    with contextlib.closing(listener):
        assert listener.getsockname() == ("127.0.0.1", port)


def test_a_host_of_which_this_machine_has_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"intake\.host: cannot listen on 192\.0\.2\.1:"):
        bound_sockets(IntakeSettings(host="192.0.2.1"))
