"""An engine that is any OpenAI-compatible server, by URL or Unix socket."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec
import structlog

from bitladder.endpoints import Endpoint, Events
from bitladder.settings.hidden import hidden
from workers.engines import lenient
from workers.engines.base import TRACE_HEADERS, Answer, EngineLoad, OnChunk
from workers.engines.errors import (
    EngineBusyError,
    EngineCorruptedError,
    EngineFaultError,
    EngineLostError,
    EngineUnreachableError,
)
from workers.engines.logprobs import is_corrupted
from workers.engines.named_events import NamedReader
from workers.engines.replies import broken_off, judged
from workers.engines.streaming import BROKEN, StreamReader
from workers.engines.usage import asking_usage, streaming, tokens_of
from workers.engines.vllm_metrics import MAX_BYTES as MAX_METRICS_BYTES
from workers.engines.vllm_metrics import read_load

log = structlog.get_logger()

# A running server that takes longer for four tokens hangs.
_WARM_UP_S = 60.0
# vLLM closes a connection that was idle for 5 s. A request that is sent on it at that moment fails, and may not be sent
# again: it is not known whether the server took it. So the worker closes its connections earlier.
KEPT_ALIVE_S = 2.0
# Above a long text with twenty log probabilities for each of its tokens.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
# Chunks without a token that are held back until the first token; each choice of a chat begins with one.
_MAX_HELD = 1024


class HttpEngine:
    """Sends request bodies as they are, and reads the answers."""

    def __init__(self, url: str, model: str, *, socket: str = "", load_limit_s: float = 5) -> None:
        self._url, self._model = url.rstrip("/"), model
        self._socket = socket
        self._limit = aiohttp.ClientTimeout(total=load_limit_s)
        self._session: aiohttp.ClientSession | None = None
        self._tells_usage = True  # the server knows stream_options; some refuse what they do not know

    async def start(self) -> str:
        """Open a new connection pool, and wait for one answer. The server itself is not ours to start."""
        await self.stop()
        self._open()
        self._tells_usage = True
        if not await self.is_healthy():
            raise EngineFaultError(f"no healthy engine at {hidden(self._url)}: GET /health must answer 200")
        try:
            # A server that hangs may still be healthy by its own account.
            await asyncio.wait_for(self.warm_up(), _WARM_UP_S)
        except TimeoutError:
            raise EngineFaultError(f"the engine at {hidden(self._url)} answered nothing in {_WARM_UP_S:g} s") from None
        except EngineUnreachableError:
            raise
        except EngineBusyError as error:
            log.info("engine busy at its start", error=str(error))  # which is an answer
        return ""

    async def warm_up(self) -> None:
        """Send one small request; any answer will do."""
        body = {"model": self._model, "prompt": "Hello", "max_tokens": 4}
        await self.generate("/v1/completions", msgspec.json.encode(body), None)

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        session = self._open()
        try:
            return await self._ask(session, Endpoint(endpoint), body, on_chunk)
        except aiohttp.ClientConnectorError as error:
            raise EngineUnreachableError(f"cannot connect to the engine: {error}") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise await self._fault(session, EngineFaultError(f"the engine broke off: {error!r}")) from error
        except EngineCorruptedError:
            raise
        except EngineFaultError as error:
            raise await self._fault(session, error) from error

    async def _ask(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, body: bytes, on_chunk: OnChunk | None
    ) -> Answer:
        start, is_echo = time.perf_counter(), _is_echo(endpoint, body)
        on_chunk = on_chunk if endpoint.streams else None
        asked, shows_usage = self._asked(endpoint, body, on_chunk)
        async with session.request(
            endpoint.row.method,
            self._url + endpoint,
            data=asked if endpoint.row.method == "POST" else None,
            headers={"Content-Type": "application/json", **TRACE_HEADERS.get()},
            allow_redirects=False,
        ) as response:
            kind = response.content_type
            # A body of an RQ producer may ask to stream in a job that does not: the chunks then have no reader.
            if (
                response.status == 200
                and endpoint.streams
                and kind != "application/json"
                and (on_chunk or kind == "text/event-stream")
            ):
                reader = (
                    NamedReader(endpoint)
                    if endpoint.row.events is Events.NAMED
                    else StreamReader(is_echo=is_echo, shows_usage=shows_usage)
                )
                return await _streamed(response, reader, on_chunk, start)
            content = await _read_body(response, MAX_ANSWER_BYTES)
        if response.status == 200:
            if kind == "application/octet-stream":
                return _no_json()
            answer = _read_plain(content, endpoint, is_echo=is_echo)
            if on_chunk and answer.status == 200:
                raise EngineFaultError("the engine did not stream its answer")
            return answer
        if response.status in (400, 422) and asked is not body and b"stream_options" in content:
            self._tells_usage = False
            return await self._ask(session, endpoint, body, on_chunk)
        return judged(response.status, response.headers, content, endpoint)

    def _asked(self, endpoint: Endpoint, body: bytes, on_chunk: OnChunk | None) -> tuple[bytes, bool]:
        """Return the body that is sent, and whether the client asked for token counts in its stream."""
        if on_chunk and endpoint.row.events is Events.NAMED:
            return streaming(body), True
        return asking_usage(body) if on_chunk and self._tells_usage else (body, True)

    async def _fault(self, session: aiohttp.ClientSession, error: EngineFaultError) -> EngineFaultError:
        """Tell an engine that is gone from one that broke on this request only.

        When its core dies, vLLM answers 500 to all requests in flight, and then ends.
        """
        if session is self._session and await self.is_healthy():
            return error
        return EngineLostError(f"the engine is gone: {error}")

    async def load(self) -> EngineLoad:
        try:
            async with self._open().get(f"{self._url}/metrics", timeout=self._limit) as response:
                if response.status != 200:
                    return EngineLoad()
                content = await _read_body(response, MAX_METRICS_BYTES)
                return read_load(content.decode(errors="replace"))
        except (aiohttp.ClientError, OSError, TimeoutError, EngineFaultError, ValueError):
            return EngineLoad()

    async def is_healthy(self) -> bool:
        try:
            async with self._open().get(f"{self._url}/health", timeout=self._limit) as response:
                return response.status in (200, 429)  # 429: too many requests, so the server is there
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        # Replaced before it is closed: requests that break off now see that the worker has done it (_fault).
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
            # No total limit: the executor ends a request at its job's deadline.
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self._session


async def _streamed(
    response: aiohttp.ClientResponse, reader: StreamReader | NamedReader, on_chunk: OnChunk | None, start: float
) -> Answer:
    ttft_s: float | None = None
    held: list[bytes] = []
    async for data in response.content.iter_any():
        held += reader.feed(data)
        if reader.refusal:
            return reader.refusal
        if not reader.has_tokens and len(held) < _MAX_HELD:
            continue  # a chat's first chunk has no token: until there is one, the job may still run on another tier
        if ttft_s is None and reader.has_tokens:
            ttft_s = time.perf_counter() - start
        if held and on_chunk:
            await on_chunk(b"".join(held))
        held = []
    return reader.answer(ttft_s, b"".join(held))


def _read_plain(body: bytes, endpoint: Endpoint, *, is_echo: bool) -> Answer:
    """Read an answer that is not streamed."""
    try:
        fields, text = lenient.read(body)
    except ValueError:
        fields, text = None, body
    if not isinstance(fields, dict):
        raise EngineFaultError(f"the engine's answer is not a JSON object: {body[:100]!r}")
    name = endpoint.row.answer
    if name not in fields or (name == "choices" and not fields[name]):
        if error := fields.get("error"):
            return broken_off(error, has_begun=False)
        raise EngineFaultError(f"the engine's answer has no {name}: {body[:100]!r}")
    choices = fields.get("choices")
    if is_corrupted(fields, is_echo=is_echo):
        raise EngineCorruptedError("the engine's answer has a log probability of NaN or infinity")
    choices = choices if isinstance(choices, list) else []
    if broken := [choice for choice in choices if isinstance(choice, dict) and choice.get("finish_reason") in BROKEN]:
        raise EngineFaultError(f"the engine broke its answer off: {broken[0]['finish_reason']}")
    prompt_tokens, completion_tokens = tokens_of(fields.get("usage"))
    valid = text if text is body else lenient.write(fields)
    return Answer(status=200, body=valid, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def _no_json() -> Answer:
    """Return the answer to a request for an answer in bytes, which no job could keep."""
    message = "an answer in bytes cannot be queued: ask for encoding_format 'float' or 'base64'"
    error = {"message": message, "type": "invalid_request_error", "param": "encoding_format", "code": "not_json"}
    return Answer(status=400, body=msgspec.json.encode({"error": error}))


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read an answer that is not streamed."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > max_bytes:
            raise EngineFaultError(f"an answer must be at most {max_bytes} bytes, got {len(body)} or more")
    return bytes(body)


def _is_echo(endpoint: Endpoint, body: bytes) -> bool:
    """Return whether an answer begins with its prompt, whose first token has no probability."""
    if endpoint is not Endpoint.COMPLETIONS or b'"echo"' not in body:
        return False
    try:
        return bool(msgspec.json.decode(body).get("echo"))
    except (ValueError, AttributeError, msgspec.DecodeError, RecursionError):
        return False
