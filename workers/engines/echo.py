"""The echo engine: answers with the words of the prompt, at a set speed and with set faults.

It has no model (echo_model/ stands for one): it is for tests, benchmarks and laptops. The answer is deterministic: the
prompt's words in turn, one token for each word. All else is as with vLLM (docs/operating/echo.md). Words in the prompt
cause faults:

- `echo:fault` breaks every attempt, `echo:busy` refuses, `echo:slow` takes ten times as long;
- `echo:crash` crashes the engine at this request's first token, with all requests in flight; until it is restarted it
  refuses connections, like a closed port;
- `echo:hang` stops the engine at this request's first token: it is healthy by its own account, and gives no token;
- `echo:nan` answers with log probabilities of NaN, `echo:loop` with one word until max_tokens;
- `echo:unsure` is a word whose alternatives are as likely as itself, for a cascade to escalate.

With `echo.execution_log` the engine logs its executions (execution_log.py), so that tests can check guarantees.
"""

from __future__ import annotations

import contextlib
import hashlib
import time

from bitladder.endpoints import Endpoint
from bitladder.settings.worker_section import EchoSettings
from workers.engines.base import Answer, EngineLoad, OnChunk
from workers.engines.echo_model.in_flight import InFlight
from workers.engines.echo_model.media import without_media
from workers.engines.echo_model.paces import paces_of
from workers.engines.echo_model.refusal import refusal
from workers.engines.echo_model.route_answers import Reply, reply_to
from workers.engines.errors import (
    EngineBusyError,
    EngineCorruptedError,
    EngineFaultError,
    EngineUnreachableError,
)
from workers.engines.execution_log import ExecutionLog


class EchoEngine:
    """An engine whose model is the prompt."""

    def __init__(self, settings: EchoSettings, tier: str = "") -> None:
        self._settings = settings
        self._log = ExecutionLog(settings.execution_log, tier) if settings.execution_log else None
        self._count = 0
        self._paces = paces_of(settings, tier)
        self._machine = InFlight()

    async def start(self) -> str:
        """After a crash or a hang, answer again. There is nothing to load."""
        self._machine.end("was started again")
        self._machine = InFlight()
        return ""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        machine = self._machine
        if machine.is_lost:
            raise EngineUnreachableError("the echo engine is down")
        context = self._settings.max_model_len
        try:
            route = Endpoint(endpoint)
            on_chunk = on_chunk if route.streams else None
            body = without_media(body) if self._settings.multimodal else body
            answer = reply_to(route, body, context, is_stream=on_chunk is not None)
        except (ValueError, RecursionError) as error:
            return refusal(error)
        if not answer.prompts:  # no work for a model
            return Answer(status=200, body=answer.whole())
        prompt = "\n".join(answer.prompts)
        if "echo:busy" in prompt:
            raise EngineBusyError("the prompt asked for it")
        slowness = 10 if "echo:slow" in prompt else 1
        with self._log.execution() if self._log else contextlib.nullcontext():
            self._fail(prompt, body)
            await self._act_up(prompt, machine, slowness)
            ttft_s = await self._run(answer, machine, on_chunk, slowness)
        return Answer(
            status=200,
            body=answer.whole(),
            ttft_s=ttft_s,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    async def load(self) -> EngineLoad:
        return EngineLoad(tokens=self._machine.tokens())

    async def is_healthy(self) -> bool:
        return not self._machine.is_lost

    async def stop(self) -> None:
        self._machine.end("was stopped")

    async def _run(self, answer: Reply, machine: InFlight, on_chunk: OnChunk | None, slowness: int) -> float | None:
        """Take as long as the answer's tokens take, and send them; return the time to the first one of a stream."""
        start_s = time.perf_counter()
        with self._paces.begin(machine, answer.prompt_tokens, slowness) as pace:
            if on_chunk is None:
                await pace.token(answer.steps - 1)
                return None
            await pace.token(0)
            first_s = time.perf_counter()
            for at in range(answer.steps):
                await pace.token(at)
                if chunks := answer.step(at):
                    await on_chunk(chunks)
        return first_s - start_s

    async def _act_up(self, prompt: str, machine: InFlight, slowness: int) -> None:
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
