"""The engine that serves, started on one checkpoint, and the requests that an evaluation makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from bitladder.settings.models_section import TierSettings
from bitladder.settings.worker_section import VllmSettings
from calibration.errors import EngineFailedError
from calibration.evaluate.distributions import Distributions, read_distributions
from workers.engines.base import Answers
from workers.engines.errors import EngineError
from workers.engines.vllm_server import VllmServer

T = TypeVar("T")

MODEL = "evaluated"
# Long-lived requests beyond what the engine batches would only wait inside it.
AT_ONCE = 16
# No answer takes so long, on the slowest machine: the engine hangs.
_ANSWER_S = 3600.0
# What reading an answer that is not vLLM's may raise.
_ODD = (LookupError, TypeError, ValueError, msgspec.MsgspecError)


class _RefusedError(EngineFailedError):
    """The engine answered that it does not do this."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """An answer, with the predictions that it was chosen from."""

    text: str
    tokens: list[int]
    predictions: Distributions


@dataclass(frozen=True, slots=True)
class _Timing:
    """The times of one streamed answer."""

    ttft_s: float
    seconds: float
    tokens: int


class Asker:
    """Makes requests to a running engine, a bounded number at once."""

    def __init__(
        self, engine: Answers, less: str, *, model: str = MODEL, at_once: int = AT_ONCE, answer_s: float = 0
    ) -> None:
        self._engine, self._model, self._answer_s = engine, model, answer_s or _ANSWER_S
        self.less = less  # what the engine had to take less of to start, if anything
        self._free = asyncio.Semaphore(at_once)

    async def tokenize(self, text: str, *, as_prompt: bool = False) -> list[int]:
        """Return the tokens of a text; `as_prompt` with those that the engine puts before a prompt."""
        request = {"prompt": text, "add_special_tokens": as_prompt}
        return await self._ask("/tokenize", request, _tokens)

    async def tokenize_chat(self, text: str) -> list[int] | None:
        """Return the tokens of a user's message in the engine's chat template; None where it has none."""
        request = {"messages": [{"role": "user", "content": text}], "add_generation_prompt": True}
        try:
            return await self._ask("/tokenize", request, _tokens)
        except _RefusedError as error:
            if "chat template" in str(error).replace("_", " "):
                return None
            raise

    async def context_tokens(self) -> int:
        """Return how many tokens a prompt and its answer may have together."""
        return await self._ask("/tokenize", {"prompt": "a"}, lambda answer: int(answer["max_model_len"]))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return await self._ask("/detokenize", {"tokens": list(tokens)}, lambda answer: str(answer["prompt"]))

    async def answer(
        self, prompt: Sequence[int], max_tokens: int, drawn: Mapping[str, Any] = MappingProxyType({})
    ) -> list[int]:
        """Return the tokens of the most likely answer to a prompt of tokens; `drawn`: see `write`."""
        request = {"prompt": list(prompt), "max_tokens": max_tokens, "temperature": 0, **drawn}
        request["return_token_ids"] = True
        return await self._ask("/v1/completions", request, lambda answer: list(answer["choices"][0]["token_ids"]))

    async def write(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stops: Sequence[str],
        top: int,
        drawn: Mapping[str, Any] = MappingProxyType({}),
    ) -> Written:
        """Return the most likely answer to a prompt of tokens, and how likely other tokens were on its way.

        `drawn`: the fields of a request by which an answer is drawn by chance instead, as temperature and seed.
        """
        shape = {"logprobs": top, "return_token_ids": True, "return_tokens_as_token_ids": True}
        asked = {"prompt": list(prompt), "max_tokens": max_tokens, "temperature": 0, **drawn} | shape
        if stops:
            asked["stop"] = list(stops)
        return await self._ask("/v1/completions", asked, lambda answer: _read_written(answer["choices"][0], top))

    async def distributions(self, tokens: Sequence[int], top: int) -> Distributions:
        """Return the most likely tokens at every position of a passage."""
        request = {"prompt": list(tokens), "max_tokens": 1, "temperature": 0, "prompt_logprobs": top}
        async with self._free:
            body = await self._send("/v1/completions", request, None)
            # Megabytes: while they are read here, the loop would answer no other connection.
            return await asyncio.to_thread(_read_predictions, tokens, body, top)

    async def complete(self, prompt: str, max_tokens: int, stops: Sequence[str]) -> str:
        """Return the most likely continuation."""
        request = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stop": list(stops)}
        return await self._ask("/v1/completions", request, lambda answer: str(answer["choices"][0]["text"]))

    async def time(self, prompt: str, tokens: int) -> _Timing:
        """Stream exactly this many tokens, and time them."""
        request = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        first: list[float] = []

        async def on_chunk(chunk: bytes) -> None:
            first.append(time.perf_counter())

        async with self._free:
            start = time.perf_counter()
            await self._send("/v1/completions", request, on_chunk)
            if not first:
                raise EngineFailedError("the engine ended a stream without a token")
            return _Timing(first[0] - start, time.perf_counter() - start, tokens)

    async def _ask(self, endpoint: str, request: dict[str, Any], read: Callable[[Any], T]) -> T:
        async with self._free:
            body = await self._send(endpoint, request, None)
        try:
            return read(msgspec.json.decode(body))
        except _ODD as error:
            raise EngineFailedError(f"the engine answered {endpoint} oddly: {body[:500]!r}") from error

    async def _send(self, endpoint: str, request: dict[str, Any], on_chunk: Any) -> bytes:  # noqa: ANN401  (OnChunk)
        try:
            async with asyncio.timeout(self._answer_s):
                body = msgspec.json.encode({"model": self._model} | request)
                answer = await self._engine.generate(endpoint, body, on_chunk)
        except TimeoutError:
            raise EngineFailedError(f"the engine did not answer {endpoint} in {self._answer_s:g} s") from None
        except EngineError as error:
            raise EngineFailedError(f"the engine did not answer {endpoint}: {error}") from error
        if answer.status != 200:
            excerpt = answer.body[:500].decode(errors="replace")
            raise _RefusedError(f"the engine answered {endpoint} with {answer.status}: {excerpt}")
        return answer.body


def _tokens(answer: Any) -> list[int]:  # noqa: ANN401  (JSON)
    return list(answer["tokens"])


def _read_written(choice: Any, top: int) -> Written:  # noqa: ANN401  (JSON)
    tokens = list(choice["token_ids"])
    positions = [
        {name.removeprefix("token_id:"): {"logprob": value} for name, value in position.items()}
        for position in choice["logprobs"]["top_logprobs"]
    ]
    # As a prompt's: what stands before its first token is not predicted.
    return Written(str(choice["text"]), tokens, read_distributions([0, *tokens], [None, *positions], top))


def _read_predictions(tokens: Sequence[int], body: bytes, top: int) -> Distributions:
    try:
        return read_distributions(tokens, msgspec.json.decode(body)["choices"][0]["prompt_logprobs"], top)
    except _ODD as error:  # null, where the model computed NaN
        raise EngineFailedError(
            f"the engine gave no log probabilities, the checkpoint may be broken: {error}"
        ) from error


@asynccontextmanager
async def serving(checkpoint: Path, tier: TierSettings, settings: VllmSettings, top: int) -> AsyncIterator[Asker]:
    """Start the engine on a checkpoint as a worker of this tier would, and end it.

    Raises:
        EngineFailedError: it does not start.

    """
    more = ("--max-logprobs", str(top))
    tier_settings = tier.model_copy(update={"checkpoint": str(checkpoint), "vllm_args": (*tier.vllm_args, *more)})
    engine = VllmServer(MODEL, tier_settings, settings)
    try:
        try:
            less = await engine.start()
        except (EngineError, OSError) as error:
            raise EngineFailedError(str(error)) from error
        yield Asker(engine, less)
    finally:
        await engine.stop()
