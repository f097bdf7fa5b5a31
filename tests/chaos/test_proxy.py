"""tests/chaos/proxy.py: each kind of bad network, as a client sees it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy
from tests.conftest import free_port, wait_until


class EchoServer:
    """Sends back what it is sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.received: list[bytes] = []
        self.open = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        self.open += 1
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received.append(data)
                    connection.sendall(data)
            except OSError:
                pass
        self.open -= 1


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connected(proxy) as client:
        assert asked(client, b"hello") == b"hello"
        yield client


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def asked(client: socket.socket, message: bytes, wait_s: float = 5) -> bytes | None:
    """Send and return what comes back; None when nothing does in time."""
    client.settimeout(wait_s)
    client.sendall(message)
    return heard(client, wait_s)


def heard(client: socket.socket, wait_s: float = 5) -> bytes | None:
    client.settimeout(wait_s)
    try:
        return client.recv(65536)
    except TimeoutError:
        return None


def test_in_fair_weather_it_passes_everything_on_both_ways(client: socket.socket) -> None:
    big = bytes(range(256)) * 4000
    threading.Thread(target=client.sendall, args=(big,)).start()

    got = b""
    while len(got) < len(big):
        got += heard(client) or b"?"

    assert got == big


def test_a_delay_makes_every_message_late_by_so_much_each_way(proxy: Proxy, client: socket.socket) -> None:
    proxy.delay(0.2)

    start = time.monotonic()
    answer = asked(client, b"late")

    assert answer == b"late"
    assert time.monotonic() - start >= 0.4


def test_a_throttle_lets_through_so_many_bytes_a_second(proxy: Proxy, client: socket.socket) -> None:
    proxy.throttle(20_000)

    start = time.monotonic()
    answer = asked(client, b"x" * 4000)

    assert answer == b"x" * 4000
    assert time.monotonic() - start >= 0.4


def test_a_cut_resets_every_connection_and_welcomes_new_ones(
    proxy: Proxy, client: socket.socket, server: EchoServer
) -> None:
    proxy.cut()

    with pytest.raises(ConnectionError):
        client.recv(1)
    wait_until(lambda: server.open == 0, "the server's end is closed too")
    with connected(proxy) as another:
        assert asked(another, b"again") == b"again"


def test_what_is_held_arrives_late_and_whole(proxy: Proxy, client: socket.socket, server: EchoServer) -> None:
    proxy.hold()
    held = asked(client, b"endurance", 0.3)
    reached = list(server.received)

    proxy.heal()

    assert held is None
    assert reached == [b"hello"]
    assert heard(client) == b"endurance"


def test_a_held_connection_that_its_client_gives_up_still_delivers(
    proxy: Proxy, client: socket.socket, server: EchoServer
) -> None:
    proxy.hold()
    client.sendall(b"sent before the end")
    client.close()
    before = list(server.received)

    proxy.heal()

    assert before == [b"hello"]
    wait_until(lambda: server.received == [b"hello", b"sent before the end"], "the server has heard it")


def test_a_black_hole_takes_connections_and_bytes_and_answers_nothing(
    proxy: Proxy, client: socket.socket, server: EchoServer
) -> None:
    proxy.black_hole()

    with connected(proxy) as another:
        assert asked(another, b"anybody", 0.3) is None
    assert asked(client, b"anybody", 0.3) is None
    assert server.received == [b"hello"]


def test_after_a_black_hole_old_connections_stay_deaf_and_new_ones_are_heard(
    proxy: Proxy, client: socket.socket, server: EchoServer
) -> None:
    proxy.black_hole()
    asked(client, b"gone", 0.3)
    proxy.heal()

    with connected(proxy) as another:
        assert asked(another, b"new") == b"new"
    assert asked(client, b"still", 0.3) is None
    assert b"still" not in b"".join(server.received)


def test_it_refuses_new_connections_until_it_is_healed_and_keeps_the_old(proxy: Proxy, client: socket.socket) -> None:
    proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    assert asked(client, b"still here") == b"still here"
    proxy.heal()
    with connected(proxy) as another:
        assert asked(another, b"back") == b"back"


def test_a_server_that_is_unreachable_ends_the_connection(proxy: Proxy) -> None:
    proxy.target_port = free_port()

    with connected(proxy) as client:
        assert heard(client) == b""
