"""Users, passwords and TLS on the way to Redis."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from bitladder.errors import ConfigError
from bitladder.queue.server.certificates import refusal_hint
from bitladder.queue.server.connection import connect, connect_sync
from bitladder.queue.server.embedded import server_command
from bitladder.queue.server.sockets import AIO, SYNC
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import Stack, make_settings
from tests.warm_start import BITLADDER

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


class TlsFront:
    """A TLS listener that asks for a certificate, before a server that speaks none (the wheel's Valkey does not)."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._behind = urlsplit(redis_url)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
        self._context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._behind.hostname, self._behind.port)
        pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, back):
                end.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate authority, and certificates of a server and of a client; and a stranger's authority."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return folder


def make_certificates(folder: Path, *authority: str) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl(*new, "-x509", *authority, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid", encoding="ascii")
        signed = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        openssl(*signed, "-days", "2", "-extfile", "names", "-out", f"{name}.pem")


@pytest.fixture
def front(redis_url: str, store: redis.Redis, folder: Path) -> Iterator[TlsFront]:
    front = TlsFront(redis_url, folder)
    yield front
    front.stop()


def over_tls(front: TlsFront, folder: Path, **other: str) -> RedisSettings:
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"} | other
    paths = {key: str(folder / name) if name else "" for key, name in files.items()}
    return make_settings(
        f"rediss://127.0.0.1:{front.port}/0", **{f"redis__{key}": path for key, path in paths.items()}
    ).redis


@needs_openssl
async def test_both_clients_speak_tls_and_show_their_certificate(front: TlsFront, folder: Path) -> None:
    settings = over_tls(front, folder)

    async with connect(settings) as client:
        assert await client.set("over", "tls")
    with connect_sync(settings) as blocking:
        assert await asyncio.to_thread(blocking.get, "over") == b"tls"


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "unix:///tmp/socket"])
def test_every_way_to_redis_has_our_connections(url: str) -> None:
    settings = make_settings(url).redis

    assert connect(settings).connection_pool.connection_class is AIO[settings.scheme]
    assert connect_sync(settings).connection_pool.connection_class is SYNC[settings.scheme]


@needs_openssl
async def test_an_authority_without_key_usage_is_refused_with_what_to_do(
    redis_url: str, store: redis.Redis, tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    front = TlsFront(redis_url, tmp_path)
    strict = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    try:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await asyncio.open_connection("127.0.0.1", front.port, ssl=strict)
        async with connect(over_tls(front, tmp_path)) as client:
            said = str((await asyncio.gather(client.ping(), return_exceptions=True))[0])
        with connect_sync(over_tls(front, tmp_path)) as blocking:
            said_blocking = str((await asyncio.gather(asyncio.to_thread(blocking.ping), return_exceptions=True))[0])
    finally:
        front.stop()

    assert "keyUsage=critical,keyCertSign,cRLSign" in refusal_hint(caught.value)
    for words in (said, said_blocking):
        assert ("keyUsage=critical" in words) if sys.version_info >= (3, 13) else (words == "True")


@needs_openssl
@pytest.mark.parametrize(
    "other",
    [{"ca_file": "stranger.pem"}, {"ca_file": ""}, {"cert_file": "", "key_file": ""}],
    ids=["stranger", "no ca", "no certificate"],
)
async def test_neither_end_trusts_a_stranger(front: TlsFront, folder: Path, other: dict[str, str]) -> None:
    settings = over_tls(front, folder, **other)

    async with connect(settings) as client:
        with pytest.raises(redis.ConnectionError, match=r"^((?!RFC 5280).)*$"):
            await client.ping()
    with connect_sync(settings) as blocking, pytest.raises(redis.ConnectionError):
        await asyncio.to_thread(blocking.ping)


async def test_what_a_burst_has_opened_is_closed_when_it_is_idle(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(make_settings(redis_url).redis) as client:
        await asyncio.gather(*(client.blpop(["nothing"], timeout=0.2) for _ in range(40)))
        opened = len(store.client_list())
        await asyncio.gather(*(client.ping() for _ in range(40)))
        kept = len(store.client_list())

        monkeypatch.setattr("bitladder.queue.server.pools.IDLE_S", 0.1)

        async def few() -> None:
            while len(await asyncio.to_thread(store.client_list)) > 4:
                await client.ping()
                await asyncio.sleep(0.02)

        await asyncio.wait_for(few(), 20)
        assert await client.ping()

    assert opened >= 40
    assert kept == opened


@pytest.mark.parametrize(
    ("url", "shown", "username", "password"),
    [
        ("redis://me:p%40ss@host:1/2", "redis://host:1/2", "me", "p@ss"),
        ("rediss://:p@host", "rediss://host", None, "p"),
        ("unix://me:p@/tmp/x?db=1", "unix:///tmp/x?db=1", "me", "p"),
        ("redis://redis@redis:1/0", "redis://redis:1/0", "redis", None),
        ("redis://host:1/0", "redis://host:1/0", None, None),
    ],
)
def test_credentials_leave_the_url(url: str, shown: str, username: str | None, password: str | None) -> None:
    settings = make_settings(url).redis

    found = settings.password.get_secret_value() if settings.password else None
    assert (settings.url, settings.username, found) == (shown, username, password)
    assert not password or "p@ss" not in repr(settings)
    kwargs = connect_sync(settings).connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"]) == (username, password)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"url": "redis://me:SECRET@h:1", "password": "SECRET"}, "password must be given once"),
        ({"url": "redis://h:1?password=SECRET"}, "not behind"),
        ({"url": "redis://:SECRET℀@h"}, "must be a URL"),
        ({"url": "redis://[SECRET"}, "must be a URL"),
        ({"password": ["SECRET"]}, "redis.password"),
        ({"passwd": "SECRET"}, "is not a setting"),
        ({"ca_file": "x", "url": "redis://:SECRET@h:1"}, "must be rediss:// with ca_file"),
        ({"cert_file": "x", "url": "rediss://:SECRET@h:1"}, "go together"),
    ],
)
def test_a_wrong_way_to_redis_is_named_without_its_secret(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_settings("redis://h:1", **{f"redis__{key}": value for key, value in flags.items()})

    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_the_embedded_server_has_no_users() -> None:
    with pytest.raises(ConfigError, match="has no users"):
        server_command(make_settings("redis://:secret@127.0.0.1:1/0").redis)


@needs_openssl
@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("name", ["nowhere.pem", "names"])
def test_a_certificate_that_cannot_be_read_is_named_at_the_start(
    front: TlsFront, folder: Path, key: str, name: str
) -> None:
    settings = over_tls(front, folder, **{key: name})
    named = rf"redis\.{'ca_file' if key == 'ca_file' else 'cert_file'} must be a PEM file"

    with pytest.raises(ConfigError, match=named):
        connect(settings)
    with pytest.raises(ConfigError, match=named):
        connect_sync(settings)


def test_an_intake_does_not_start_without_the_certificates_it_is_to_trust(make_stack: Callable[..., Stack]) -> None:
    environment = {"BITLADDER_REDIS__URL": "rediss://127.0.0.1:1/0", "BITLADDER_REDIS__CA_FILE": "/nowhere/ca.pem"}
    for command in (["serve"], ["worker", "--tier", "int4"], ["queues"]):
        done = BITLADDER.run("bitladder.cli.main", *command, env=make_stack(**environment).environment)

        assert done.returncode == 2
        assert "redis.ca_file must be a PEM file with certificates to trust, got '/nowhere/ca.pem'" in done.stderr
        assert "Traceback" not in done.stderr
