"""The echo engine: answers with the words of the prompt, at a set speed and with set faults.

No model: for tests, benchmarks and laptops. What it answers is deterministic: the prompt's words in turn, one token
a word, until max_tokens (default 16). Words in the prompt steer it: `echo:fault` breaks every attempt, `echo:busy`
refuses, `echo:slow` takes ten times as long.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from typing import Any

import msgspec

from dispatcher.errors import EngineBusyError, EngineFaultError
from dispatcher.sections import EchoSettings
from workers.engines.base import Answer, Load, OnPiece

_DEFAULT_TOKENS = 16
_MOST_TOKENS = 100_000


class EchoEngine:
    """An engine whose model is the prompt."""

    def __init__(self, settings: EchoSettings) -> None:
        self._settings = settings
        self._count = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, endpoint: str, body: bytes, on_piece: OnPiece | None) -> Answer:
        request = msgspec.json.decode(body)
        prompt = _prompt(request)
        wanted = request.get("max_completion_tokens") or request.get("max_tokens") or _DEFAULT_TOKENS
        if not isinstance(wanted, int) or not 0 < wanted <= _MOST_TOKENS:
            return _refusal(f"max_tokens must be a whole number from 1 to {_MOST_TOKENS}, got {wanted!r}")
        if "echo:busy" in prompt:
            raise EngineBusyError("the prompt asked for it")
        self._fail(prompt, body)
        slowness = 10 if "echo:slow" in prompt else 1
        words = list(itertools.islice(itertools.cycle(prompt.split() or ["…"]), wanted))
        shape = _Shape(endpoint, str(request.get("model", "")), len(prompt.split()))
        if on_piece:
            return await self._stream(words, shape, on_piece, slowness)
        await asyncio.sleep((self._settings.ttft_ms / 1000 + (wanted - 1) / self._settings.tokens_per_s) * slowness)
        return Answer(
            status=200,
            body=shape.whole(words),
            prompt_tokens=shape.prompt_tokens,
            completion_tokens=len(words),
        )

    async def load(self) -> Load:
        return Load()

    async def is_healthy(self) -> bool:
        return True

    async def stop(self) -> None:
        """Nothing to end."""

    async def _stream(self, words: list[str], shape: _Shape, on_piece: OnPiece, slowness: int) -> Answer:
        start = time.perf_counter()
        await asyncio.sleep(self._settings.ttft_ms / 1000 * slowness)
        ttft_s = time.perf_counter() - start
        first = time.perf_counter()
        for index, word in enumerate(words):
            # By the clock, as an engine's steps are: whoever is slow to take a token does not slow the next one.
            due = first + index * slowness / self._settings.tokens_per_s
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            await on_piece(shape.piece(word + " ", is_first=index == 0, is_last=index == len(words) - 1))
        return Answer(
            status=200,
            body=b"",
            ttft_s=ttft_s,
            text=" ".join(words),
            prompt_tokens=shape.prompt_tokens,
            completion_tokens=len(words),
        )

    def _fail(self, prompt: str, body: bytes) -> None:
        self._count += 1
        if "echo:fault" in prompt or (self._settings.fault_ratio and self._draw(body) < self._settings.fault_ratio):
            raise EngineFaultError("an echo fault, as asked for")

    def _draw(self, body: bytes) -> float:
        """Return a number from 0 to 1 that seed, count and body determine."""
        drawn = hashlib.sha256(b"%d %d " % (self._settings.seed, self._count) + body).digest()
        return int.from_bytes(drawn[:4], "big") / 2**32


class _Shape:
    """OpenAI's shapes for one answer."""

    def __init__(self, endpoint: str, model: str, prompt_tokens: int) -> None:
        self._is_chat = endpoint.endswith("chat/completions")
        self._model = model
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

    def piece(self, text: str, *, is_first: bool, is_last: bool) -> bytes:
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
            "id": f"echo-{time.time_ns():x}",
            "object": kind,
            "created": int(time.time()),
            "model": self._model,
        }


def _prompt(request: dict[str, Any]) -> str:
    if "messages" in request:
        return "\n".join(str(message.get("content", "")) for message in request["messages"])
    prompt = request.get("prompt", "")
    return prompt if isinstance(prompt, str) else " ".join(str(part) for part in prompt)


def _refusal(message: str) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": "max_tokens", "code": 400}
    return Answer(status=400, body=msgspec.json.encode({"error": error}))
