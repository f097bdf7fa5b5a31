"""Post to a receiver: to the address that was checked, without redirects and proxies, in bounded time and size."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from bitladder.routing.webhook_checks import RefusedAddressError, is_allowed
from bitladder.settings.intake_section import WebhookSettings
from dispatcher.webhooks.deliveries import Answer, cut, read_retry_after

# Of an answer only the status counts; so much of its body is read, that its server may end as it wants to.
_MAX_ANSWER_BYTES = 4096
# Threads that look up names, one for each that is looked up: the system's resolver may take half a minute, and other
# parts of the intake need their threads.
_MAX_LOOKUPS = 128
_HEADERS = {"Content-Type": "application/json", "User-Agent": f"bitladder/{version('bitladder')}"}


class Poster:
    """Posts as the settings allow it now."""

    def __init__(self, settings: Callable[[], WebhookSettings]) -> None:
        self._settings = settings
        self._lookups = ThreadPoolExecutor(_MAX_LOOKUPS, "webhook-lookup")
        self._session: aiohttp.ClientSession | None = None
        self._trusted = ssl.create_default_context()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Post once; every failure is an answer."""
        start = time.monotonic()
        try:
            status, error, retry_after_s = await self._post(url, _HEADERS | headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as failure:  # a timeout is an OSError
            status, error, retry_after_s = None, self._reason(failure), None
        duration_ms = int((time.monotonic() - start) * 1000)
        return Answer(status_code=status, error=error, duration_ms=duration_ms, retry_after_s=retry_after_s)

    async def aclose(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)
        if self._session:
            await self._session.close()

    async def _post(
        self, url: str, headers: dict[str, str], body: bytes
    ) -> tuple[int | None, str | None, float | None]:
        timeout = aiohttp.ClientTimeout(total=self._settings().timeout_s)
        async with self._opened().post(
            url, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            await answer.content.read(_MAX_ANSWER_BYTES)
            error = None if 200 <= answer.status < 300 else f"the receiver answered with status {answer.status}"
            if 300 <= answer.status < 400:
                error = f"{error}: redirects are not followed"
            return answer.status, error, read_retry_after(answer.headers)

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session; it belongs to the loop that posts first."""
        if self._session is None:
            # A connection per delivery: each is made to an address that is checked then.
            connector = aiohttp.TCPConnector(
                limit=0,
                force_close=True,
                use_dns_cache=False,
                resolver=_Resolver(self._lookups),
                socket_factory=self._checked_socket,
                ssl=self._trusted,
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            )
        return self._session

    def _checked_socket(self, target: Any) -> socket.socket:  # noqa: ANN401  (aiohttp's type says no more)
        """Make the socket that is then connected to this very address, whatever a name led to before."""
        family, kind, protocol, _, address = target
        if not is_allowed(str(address[0]), self._settings().allowed_networks):
            raise RefusedAddressError(
                f"{address[0]} is a private or reserved address, and none of webhooks.allowed_networks"
            )
        return socket.socket(family, kind, protocol)

    def _reason(self, failure: Exception) -> str:
        if isinstance(failure, TimeoutError):
            return f"there was no answer within {self._settings().timeout_s:g} s"
        refusal: BaseException | None = failure
        while refusal and not isinstance(refusal, RefusedAddressError):
            refusal = refusal.__cause__ or refusal.__context__
        return cut(f"the receiver cannot be reached: {refusal or failure}")


class _Resolver(AbstractResolver):
    """Looks up names with threads of its own, and each once at a time: one that hangs holds one thread."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._running: dict[tuple[str, int, int], asyncio.Future[list[Any]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        name = (host, port, family)
        if name not in self._running:
            look_up = asyncio.get_running_loop().run_in_executor
            self._running[name] = look_up(self._threads, socket.getaddrinfo, *name, socket.SOCK_STREAM)
            self._running[name].add_done_callback(lambda done: self._forget(name, done))
        infos = await asyncio.shield(self._running[name])
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in infos
        ]

    def _forget(self, name: tuple[str, int, int], done: asyncio.Future[list[Any]]) -> None:
        del self._running[name]
        _ = done.cancelled() or done.exception()  # it counts as read: nobody may wait for it any more

    async def close(self) -> None:
        """Do nothing: the threads belong to the poster."""
