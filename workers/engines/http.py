"""Any OpenAI-compatible server, by URL or Unix socket."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec

from dispatcher.errors import EngineBusyError, EngineCorruptedError, EngineFaultError, EngineLostError
from workers.engines.base import Answer, Load, OnPiece
from workers.engines.logprobs import has_bare_nan, is_corrupted
from workers.engines.sse import StreamReader


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Body(msgspec.Struct):
    usage: _Usage | None = None


_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_READ, _WRITTEN, _CORRUPTED = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:corrupted_requests_total",
)
_SUMMED = {_RUNNING, _WAITING, _READ, _WRITTEN, _CORRUPTED}
# Of a server that runs already: what takes so long for four tokens hangs.
_WARM_UP_S = 60.0
# vLLM closes a connection that idled for 5 s. A request that is sent on it at that moment fails, and may not be sent
# again: nobody knows whether it was taken. So ours are given up earlier.
KEPT_ALIVE_S = 2.0
_usage = msgspec.json.Decoder(_Body).decode


class HttpEngine:
    """Passes bodies through as they are."""

    def __init__(self, url: str, model: str, *, socket: str = "", load_limit_s: float = 5) -> None:
        self._url, self._model = url.rstrip("/"), model
        self._socket = socket
        self._limit = aiohttp.ClientTimeout(total=load_limit_s)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> str:
        """Open a new connection pool, and see the server answer a request; the server is somebody else's."""
        await self.stop()
        self._open()
        if not await self.is_healthy():
            raise EngineFaultError(f"no healthy engine at {self._url}: GET /health must answer 200")
        try:
            # A server that hangs may call itself healthy.
            await asyncio.wait_for(self.warm_up(), _WARM_UP_S)
        except TimeoutError:
            raise EngineFaultError(f"the engine at {self._url} answered nothing in {_WARM_UP_S:g} s") from None
        return ""

    async def warm_up(self) -> None:
        """Send one small request; any answer will do."""
        body = {"model": self._model, "prompt": "Hello", "max_tokens": 4}
        await self.generate("/v1/completions", msgspec.json.encode(body), None)

    async def generate(self, endpoint: str, body: bytes, on_piece: OnPiece | None) -> Answer:
        session = self._open()
        try:
            return await self._ask(session, endpoint, body, on_piece)
        except aiohttp.ClientConnectorError as error:
            raise EngineBusyError(f"cannot connect to the engine: {error}") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise await self._fault(session, EngineFaultError(f"the engine broke off: {error!r}")) from error
        except EngineCorruptedError:
            raise
        except EngineFaultError as error:
            raise await self._fault(session, error) from error

    async def _ask(
        self, session: aiohttp.ClientSession, endpoint: str, body: bytes, on_piece: OnPiece | None
    ) -> Answer:
        async with session.post(self._url + endpoint, data=body, headers={"Content-Type": "application/json"}) as got:
            if got.status in (429, 503):
                raise EngineBusyError(f"the engine is busy ({got.status})")
            if got.status == 200 and on_piece:
                return await _read_stream(got, on_piece)
            return _plain(got.status, await got.read())

    async def _fault(self, session: aiohttp.ClientSession, error: EngineFaultError) -> EngineFaultError:
        """Tell an engine that is gone from one that broke on this request only.

        vLLM answers 500 to all that was in flight when its core died, and then ends.
        """
        if session is self._session and await self.is_healthy():
            return error
        return EngineLostError(f"the engine is gone: {error}")

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
        # Given up before it is closed: whoever breaks off now sees that it was us.
        session, self._session = self._session, None
        if session:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                aiohttp.UnixConnector(self._socket, limit=0, keepalive_timeout=KEPT_ALIVE_S)
                if self._socket
                else aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE_S)
            )
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
        if reader.is_corrupted:
            raise EngineCorruptedError("the stream has a log probability that is no number")
    if reader.error or not reader.is_done:
        raise EngineFaultError(f"the stream ended early: {(reader.error or b'connection closed').decode()[:500]}")
    return Answer(
        status=200,
        body=b"",
        ttft_s=ttft_s,
        text="".join(reader.texts),
        is_cut=reader.is_cut,
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
        if has_bare_nan(body):
            raise EngineCorruptedError("the engine's answer has NaN or infinity in it") from error
        raise EngineFaultError(f"the engine's answer is not a JSON object: {body[:100]!r}") from error
    if is_corrupted(body):
        raise EngineCorruptedError("the engine's answer has a log probability that is no number")
    return Answer(
        status=status, body=body, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens or 0
    )


def _as_error(status: int, body: bytes) -> bytes:
    """Return what a proxy before the engine says in plain text as an OpenAI error."""
    message = body[:500].decode(errors="replace") or f"the engine answered {status}"
    return msgspec.json.encode({"error": {"message": message, "type": "invalid_request_error", "code": status}})


def _read_load(text: str) -> Load:
    """Read vLLM's own figures; a server without them counts as idle."""
    sums: dict[str, float] = {}
    used = 0.0
    for line in text.splitlines():
        if not line.startswith("vllm:"):
            continue
        name, value = line.partition("{")[0], line.rpartition(" ")[2]
        if name in _SUMMED:
            sums[name] = sums.get(name, 0.0) + float(value)
        elif name == "vllm:kv_cache_usage_perc":
            used = max(used, float(value))
    tokens = [sums[name] for name in (_READ, _WRITTEN) if name in sums]
    return Load(
        running=int(sums.get(_RUNNING, 0)),
        waiting=int(sums.get(_WAITING, 0)),
        cache_used=used,
        tokens=int(sum(tokens)) if tokens else None,
        corrupted=int(sums.get(_CORRUPTED, 0)),
    )
