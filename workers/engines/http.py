"""Any OpenAI-compatible server, by URL or Unix socket."""

from __future__ import annotations

import time

import aiohttp
import msgspec

from dispatcher.errors import EngineBusyError, EngineFaultError
from workers.engines.base import Answer, Load, OnPiece
from workers.engines.sse import StreamReader


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Body(msgspec.Struct):
    usage: _Usage | None = None


_usage = msgspec.json.Decoder(_Body).decode


class HttpEngine:
    """Passes bodies through as they are."""

    def __init__(self, url: str, *, socket: str = "", load_limit_s: float = 5) -> None:
        self._url = url.rstrip("/")
        self._socket = socket
        self._limit = aiohttp.ClientTimeout(total=load_limit_s)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open a new connection pool; the server is somebody else's. Requests on the old one are given up as broken."""
        await self.stop()
        self._open()
        if not await self.is_healthy():
            raise EngineFaultError(f"no healthy engine at {self._url}: GET /health must answer 200")

    async def generate(self, endpoint: str, body: bytes, on_piece: OnPiece | None) -> Answer:
        session = self._open()
        started = False
        try:
            async with session.post(
                self._url + endpoint, data=body, headers={"Content-Type": "application/json"}
            ) as got:
                started = True
                if got.status in (429, 503):
                    raise EngineBusyError(f"the engine is busy ({got.status})")
                if got.status == 200 and on_piece:
                    return await _read_stream(got, on_piece)
                return _plain(got.status, await got.read())
        except aiohttp.ClientConnectorError as error:
            raise EngineBusyError(f"cannot connect to the engine: {error}") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if isinstance(error, aiohttp.ServerDisconnectedError) and not started:
                raise EngineFaultError(f"the engine closed the connection: {error}") from error
            raise EngineFaultError(f"the engine broke off: {error}") from error

    async def load(self) -> Load:
        try:
            async with self._open().get(f"{self._url}/metrics", timeout=self._limit) as got:
                return _read_load(await got.text()) if got.status == 200 else Load()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return Load()

    async def is_healthy(self) -> bool:
        try:
            async with self._open().get(f"{self._url}/health", timeout=self._limit) as got:
                return got.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket, limit=0) if self._socket else aiohttp.TCPConnector(limit=0)
            # No total limit: a job's deadline is the pump's business.
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self._session


async def _read_stream(got: aiohttp.ClientResponse, on_piece: OnPiece) -> Answer:
    start, reader, ttft_s = time.perf_counter(), StreamReader(), None
    async for data in got.content.iter_any():
        events = reader.feed(data)
        if ttft_s is None and any(reader.texts):
            ttft_s = time.perf_counter() - start
        if events:
            await on_piece(b"".join(events))
    if reader.error or not reader.is_done:
        raise EngineFaultError(f"the stream ended early: {(reader.error or b'connection closed').decode()[:500]}")
    return Answer(
        status=200,
        body=b"",
        ttft_s=ttft_s,
        text="".join(reader.texts),
        prompt_tokens=reader.prompt_tokens,
        completion_tokens=reader.completion_tokens,
    )


def _plain(status: int, body: bytes) -> Answer:
    if status >= 500:
        raise EngineFaultError(f"the engine answered {status}: {body[:500].decode(errors='replace')}")
    try:
        usage = _usage(body).usage or _Usage()
    except msgspec.DecodeError as error:
        if status != 200:
            return Answer(status=status, body=_as_error(status, body))
        raise EngineFaultError(f"the engine's answer is not a JSON object: {body[:100]!r}") from error
    return Answer(
        status=status, body=body, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens or 0
    )


def _as_error(status: int, body: bytes) -> bytes:
    """Return what a proxy before the engine says in plain text as an OpenAI error."""
    message = body[:500].decode(errors="replace") or f"the engine answered {status}"
    return msgspec.json.encode({"error": {"message": message, "type": "invalid_request_error", "code": status}})


def _read_load(text: str) -> Load:
    """Read vLLM's own figures; a server without them counts as idle."""
    running, waiting, used = 0.0, 0.0, 0.0
    for line in text.splitlines():
        if line.startswith("vllm:num_requests_running{"):
            running += float(line.rpartition(" ")[2])
        elif line.startswith("vllm:num_requests_waiting{"):
            waiting += float(line.rpartition(" ")[2])
        elif line.startswith("vllm:kv_cache_usage_perc{"):
            used = max(used, float(line.rpartition(" ")[2]))
    return Load(running=int(running), waiting=int(waiting), cache_used=used)
