"""The echo engine: answers with the words of the prompt, at a set speed and with set faults.

It has no model: it is for tests, benchmarks and laptops. The answer is deterministic: the prompt's words in turn, one
token for each word, until max_tokens (default 16). Words in the prompt cause faults:

- `echo:fault` breaks every attempt, `echo:busy` refuses, `echo:slow` takes ten times as long;
- `echo:crash` crashes the engine at this request's first token, with all requests in flight; until it is restarted it
  refuses connections, like a closed port;
- `echo:hang` stops the engine at this request's first token: it is healthy by its own account, and gives no token;
- `echo:nan` answers with log probabilities of NaN, `echo:loop` with one word until max_tokens.

With `echo.execution_log` the engine logs its executions (execution_log.py), so that tests can check guarantees.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
from typing import Any

import msgspec

from bitladder.settings.worker_section import EchoSettings
from workers.engines.base import Answer, EngineLoad, OnChunk
from workers.engines.errors import (
    EngineBusyError,
    EngineCorruptedError,
    EngineFaultError,
    EngineLostError,
    EngineUnreachableError,
)
from workers.engines.execution_log import ExecutionLog

_DEFAULT_TOKENS = 16
_MAX_TOKENS = 100_000
_LOOP = "again"  # the word of echo:loop; a word of the prompt would be a repetition that the client asked for


class EchoEngine:
    """An engine whose model is the prompt."""

    def __init__(self, settings: EchoSettings, tier: str = "") -> None:
        self._settings = settings
        self._log = ExecutionLog(settings.execution_log, tier) if settings.execution_log else None
        self._count = 0
        self._machine = _Machine()

    async def start(self) -> str:
        """After a crash or a hang, answer again. There is nothing to load."""
        self._machine.end("was started again")
        self._machine = _Machine()
        return ""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        try:
            request = _decode(body)
        except (ValueError, RecursionError) as error:
            return _refusal(f"the body cannot be read: {error}", None)
        prompt = _prompt(endpoint, request)
        max_tokens = request.get("max_completion_tokens") or request.get("max_tokens") or _DEFAULT_TOKENS
        if not isinstance(max_tokens, int) or not 0 < max_tokens <= _MAX_TOKENS:
            message = f"max_tokens must be a whole number from 1 to {_MAX_TOKENS}, got {max_tokens!r:.80}"
            return _refusal(message, "max_tokens")
        machine = self._machine
        if machine.is_lost:
            raise EngineUnreachableError("the echo engine is down")
        if "echo:busy" in prompt:
            raise EngineBusyError("the prompt asked for it")
        slowness = 10 if "echo:slow" in prompt else 1
        source = [_LOOP] if "echo:loop" in prompt else prompt.split() or ["…"]
        words = list(itertools.islice(itertools.cycle(source), max_tokens))
        shape = _Shape(endpoint, str(request.get("model", "")), len(prompt.split()))
        with self._log.execution() if self._log else contextlib.nullcontext():
            self._fail(prompt, body)
            await self._act_up(prompt, machine, slowness)
            if on_chunk:
                return await self._stream(words, shape, machine, on_chunk, slowness)
            return await self._whole(words, shape, machine, slowness)

    async def load(self) -> EngineLoad:
        return EngineLoad(tokens=self._machine.tokens())

    async def is_healthy(self) -> bool:
        return not self._machine.is_lost

    async def stop(self) -> None:
        self._machine.end("was stopped")

    async def _whole(self, words: list[str], shape: _Shape, machine: _Machine, slowness: int) -> Answer:
        following_s = (len(words) - 1) / self._settings.tokens_per_s
        await machine.wait((self._settings.ttft_ms / 1000 + following_s) * slowness)
        return Answer(
            status=200,
            body=shape.whole(words),
            prompt_tokens=shape.prompt_tokens,
            completion_tokens=len(words),
        )

    async def _stream(
        self, words: list[str], shape: _Shape, machine: _Machine, on_chunk: OnChunk, slowness: int
    ) -> Answer:
        start_s = time.perf_counter()
        await machine.wait(self._settings.ttft_ms / 1000 * slowness)
        first_s = time.perf_counter()
        ttft_s = first_s - start_s
        for index, word in enumerate(words):
            # By the clock, like an engine's steps: a reader that is slow to take a token does not delay the next one.
            due_s = first_s + index * slowness / self._settings.tokens_per_s
            await machine.wait(due_s - time.perf_counter())
            await on_chunk(shape.chunk(word + " ", is_first=index == 0, is_last=index == len(words) - 1))
        return Answer(
            status=200,
            body=shape.whole(words),
            ttft_s=ttft_s,
            prompt_tokens=shape.prompt_tokens,
            completion_tokens=len(words),
        )

    async def _act_up(self, prompt: str, machine: _Machine, slowness: int) -> None:
        """Crash, hang or break at the first token, where the prompt says so."""
        words = [word for word in ("echo:crash", "echo:hang", "echo:nan") if word in prompt]
        if not words:
            return
        await machine.wait(self._settings.ttft_ms / 1000 * slowness)
        if words[0] == "echo:crash":
            machine.end("crashed")
        elif words[0] == "echo:hang":
            machine.hang()
        else:
            raise EngineCorruptedError("the prompt asked for log probabilities of NaN")
        await machine.wait(0)

    def _fail(self, prompt: str, body: bytes) -> None:
        self._count += 1
        if "echo:fault" in prompt or (self._settings.fault_ratio and self._draw(body) < self._settings.fault_ratio):
            raise EngineFaultError("an echo fault, as asked for")

    def _draw(self, body: bytes) -> float:
        """Return a number from 0 to 1 that seed, count and body determine."""
        drawn = hashlib.sha256(b"%d %d " % (self._settings.seed, self._count) + body).digest()
        return int.from_bytes(drawn[:4], "big") / 2**32


class _Machine:
    """What the requests in the engine share: after a crash none of them goes on, and in a hang all of them wait."""

    def __init__(self) -> None:
        self.is_lost = False
        self._reason = ""
        self._hung_s: float | None = None
        self._waits: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Sleep, as a request does until its next token; raise as soon as the engine is lost."""
        if self.is_lost:
            raise self._error()
        is_hung = self._hung_s is not None
        if seconds <= 0 and not is_hung:
            return
        loop = asyncio.get_running_loop()
        wait = loop.create_future()
        self._waits.add(wait)
        timer = loop.call_later(max(0, seconds), self._wake, wait)
        try:
            await wait
        finally:
            timer.cancel()
            self._waits.discard(wait)

    def tokens(self) -> int:
        """Return a number that grows for as long as the engine works."""
        return int((time.monotonic() if self._hung_s is None else self._hung_s) * 1000)

    def hang(self) -> None:
        """Give no more tokens."""
        self._hung_s = time.monotonic()

    def end(self, reason: str) -> None:
        """End every request in flight with EngineLostError."""
        self.is_lost, self._reason = True, reason
        for wait in self._waits:
            if not wait.done():
                wait.set_exception(self._error())

    def _error(self) -> EngineLostError:
        return EngineLostError(f"the echo engine {self._reason}")

    def _wake(self, wait: asyncio.Future[None]) -> None:
        if self._hung_s is None and not wait.done():
            wait.set_result(None)


class _Shape:
    """OpenAI's JSON for one answer."""

    def __init__(self, endpoint: str, model: str, prompt_tokens: int) -> None:
        self._is_chat = endpoint.endswith("chat/completions")
        self._model = model
        self._id = f"echo-{time.time_ns():x}"  # one for the whole answer: chunks with two ids come from two executions
        self.prompt_tokens = prompt_tokens

    def whole(self, words: list[str]) -> bytes:
        text = " ".join(words)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        count = len(words)
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": count,
            "total_tokens": self.prompt_tokens + count,
        }
        return msgspec.json.encode(self._head("") | {"choices": [choice], "usage": usage})

    def chunk(self, text: str, *, is_first: bool, is_last: bool) -> bytes:
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "length" if is_last else None,
            "logprobs": None,
        }
        if self._is_chat:
            choice["delta"] = {"role": "assistant", "content": text} if is_first else {"content": text}
        else:
            choice["text"] = text
        return b"data: " + msgspec.json.encode(self._head(".chunk") | {"choices": [choice]}) + b"\n\n"

    def _head(self, suffix: str) -> dict[str, Any]:
        kind = "chat.completion" + suffix if self._is_chat else "text_completion"
        return {
            "id": self._id,
            "object": kind,
            "created": int(time.time()),
            "model": self._model,
        }


def _decode(body: bytes) -> dict[str, Any]:
    request = msgspec.json.decode(body)
    if not isinstance(request, dict):
        raise ValueError("it must be a JSON object")
    return request


def _prompt(endpoint: str, request: dict[str, Any]) -> str:
    """Return the text of the prompt; other values as Python writes them."""
    parts = request.get("messages" if endpoint.endswith("chat/completions") else "prompt", "")
    if not isinstance(parts, list):
        return str(parts)
    return "\n".join(str(part.get("content", "") if isinstance(part, dict) else part) for part in parts)


def _refusal(message: str, param: str | None) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": 400}
    return Answer(status=400, body=msgspec.json.encode({"error": error}))
