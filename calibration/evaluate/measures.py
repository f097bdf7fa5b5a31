"""What is measured of a checkpoint: each measure asks the engine, and its result can be stored and read back."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np

from calibration.errors import InputError
from calibration.evaluate.distributions import Distributions
from calibration.evaluate.engine import AT_ONCE, Asker
from calibration.evaluate.memory import gpu_bytes, resident_bytes
from calibration.evaluate.problems import ENGINE_STOPS, MAX_TOKENS, STOPS, Problem, cut
from calibration.evaluate.tasks import Task, is_right
from calibration.sandbox.base import Sandbox
from calibration.terminal.progress import Advance
from calibration.texts.passages import PASSAGE_TOKENS, cut_text

# How many rounds of AT_ONCE answers of so many tokens are timed.
_ROUNDS, _TIMED_TOKENS = 5, 32

Result = TypeVar("Result")


class Measure(Protocol[Result]):
    """One measure of a checkpoint."""

    @property
    def name(self) -> str:
        """How results and progress call it."""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the result depends on beside the checkpoint and the engine, as JSON."""

    async def take(self, asker: Asker, advance: Advance) -> Result: ...

    def encode(self, result: Result) -> bytes: ...

    def decode(self, content: bytes) -> Result: ...


@dataclass(frozen=True, slots=True)
class Passages:
    """The predictions for all passages of a kind."""

    tokens: str  # digest of the token ids: two checkpoints must have read the same
    predictions: tuple[Distributions, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the held-out text of one kind is, and what else was likely."""

    kind: str
    texts: Sequence[str]
    budget: int  # tokens
    top: int

    @property
    def name(self) -> str:
        return f"text.{self.kind}"

    @property
    def inputs(self) -> dict[str, Any]:
        shape = {"budget": self.budget, "top": self.top, "passage": PASSAGE_TOKENS}
        return shape | {"texts": hashlib.sha256("\0".join(self.texts).encode()).hexdigest()}

    async def take(self, asker: Asker, advance: Advance) -> Passages:
        passages = await self._passages(asker)
        if not passages:
            raise InputError(f"held-out text of kind {self.kind!r} is too short: no text of it has two tokens")
        predictions = await _all([asker.distributions(tokens, self.top) for tokens in passages], advance)
        return Passages(hashlib.sha256(repr(passages).encode()).hexdigest(), tuple(predictions))

    async def _passages(self, asker: Asker) -> list[list[int]]:
        passages: list[list[int]] = []
        left = self.budget
        for text in self.texts:
            its = cut_text(await asker.tokenize(text), left)
            passages += its
            left -= sum(map(len, its))
            if left <= 1:
                break
        return passages

    def encode(self, result: Passages) -> bytes:
        file, rows = io.BytesIO(), result.predictions
        np.savez_compressed(
            file,
            tokens=np.array(result.tokens),
            ends=np.cumsum([len(one.actual) for one in rows]),
            actual=np.concatenate([one.actual for one in rows]),
            ids=np.concatenate([one.ids for one in rows]),
            logprobs=np.concatenate([one.logprobs for one in rows]),
        )
        return file.getvalue()

    def decode(self, content: bytes) -> Passages:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            parts = (np.split(file[name], file["ends"][:-1]) for name in ("actual", "ids", "logprobs"))
            return Passages(str(file["tokens"]), tuple(Distributions(*one) for one in zip(*parts, strict=True)))


class Solved(msgspec.Struct, frozen=True):
    """One problem with the model's answer and what became of it."""

    name: str
    passed: bool
    reason: str
    completion: str


@dataclass(frozen=True, slots=True)
class CodeProblems:
    """HumanEval pass@1: one greedy answer a problem, judged in a sandbox."""

    problems: Sequence[Problem]
    sandbox: Sandbox
    name: str = "code"

    @property
    def inputs(self) -> dict[str, Any]:
        names = [problem.name for problem in self.problems]
        return {
            "problems": names,
            "tokens": MAX_TOKENS,
            "stops": STOPS,
            "asked": self.problems[0].question,  # stands for the form of all
            "sandbox": self.sandbox.name,
        }

    async def take(self, asker: Asker, advance: Advance) -> list[Solved]:
        answers = [asker.complete(problem.question, MAX_TOKENS, ENGINE_STOPS) for problem in self.problems]
        completions = [cut(answer) for answer in await _all(answers, advance)]
        judges = asyncio.Semaphore(os.cpu_count() or 1)

        async def judged(problem: Problem, completion: str) -> Solved:
            async with judges:
                verdict = await asyncio.to_thread(self.sandbox.judge, problem.program(completion))
            return Solved(problem.name, verdict.passed, verdict.reason, completion)

        return await _all(list(map(judged, self.problems, completions)))

    def encode(self, result: list[Solved]) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> list[Solved]:
        return msgspec.json.decode(content, type=list[Solved])


class Answered(msgspec.Struct, frozen=True):
    """One own task with the model's answer."""

    name: str
    right: bool
    answer: str


@dataclass(frozen=True, slots=True)
class OwnTasks:
    """The user's own tasks: one greedy answer each."""

    tasks: Sequence[Task]
    name: str = "tasks"

    @property
    def inputs(self) -> dict[str, Any]:
        return {"tasks": [task.model_dump(by_alias=True) for task in self.tasks]}

    async def take(self, asker: Asker, advance: Advance) -> list[Answered]:
        asked = [asker.complete(task.prompt, task.max_tokens, task.stop) for task in self.tasks]
        answers = await _all(asked, advance)
        pairs = zip(self.tasks, answers, strict=True)
        return [Answered(task.name, is_right(task, answer), answer) for task, answer in pairs]

    def encode(self, result: list[Answered]) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> list[Answered]:
        return msgspec.json.decode(content, type=list[Answered])


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the engine was, and what it held."""

    tokens_per_s: list[float]  # of each round
    ttft_s: list[float]  # of each answer
    resident_bytes: int
    gpu_bytes: int | None


@dataclass(frozen=True, slots=True)
class Pace:
    """Rounds of as many answers at once as the engine is given, each of the same number of tokens."""

    prompts: Sequence[str]
    machine: Mapping[str, str]  # a result of another one is none: the store may be shared
    name: str = "pace"

    @property
    def inputs(self) -> dict[str, Any]:
        rounds = {"rounds": _ROUNDS, "tokens": _TIMED_TOKENS, "at_once": AT_ONCE}
        return rounds | {"prompts": list(self.prompts), "machine": dict(self.machine)}

    async def take(self, asker: Asker, advance: Advance) -> Paced:
        rates, waits = [], []
        await asker.time(self.prompts[0], _TIMED_TOKENS)  # the first answer after a start is slower than any other
        for turn in range(_ROUNDS):
            prompts = [self.prompts[(turn * AT_ONCE + index) % len(self.prompts)] for index in range(AT_ONCE)]
            start = time.perf_counter()
            timings = await _all([asker.time(prompt, _TIMED_TOKENS) for prompt in prompts])
            rates.append(sum(one.tokens for one in timings) / (time.perf_counter() - start))
            waits += [one.ttft_s for one in timings]
            advance(turn + 1, _ROUNDS)
        held, pids = resident_bytes(os.getpid())
        return Paced(tokens_per_s=rates, ttft_s=waits, resident_bytes=held, gpu_bytes=gpu_bytes(pids))

    def encode(self, result: Paced) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> Paced:
        return msgspec.json.decode(content, type=Paced)


def _unseen(done: int, total: int | None) -> None:
    """Say nothing of how far something is."""


async def _all(asked: Sequence[Coroutine[Any, Any, Result]], advance: Advance = _unseen) -> list[Result]:
    """Wait for all answers at once, and say how many came; when one fails, the others are given up.

    Whatever went on asking would ask an engine that is stopped by then.
    """
    tasks = [asyncio.ensure_future(one) for one in asked]
    done = 0

    def count(task: asyncio.Task[Result]) -> None:
        nonlocal done
        if not task.cancelled() and task.exception() is None:
            done += 1
            advance(done, len(tasks))

    for task in tasks:
        task.add_done_callback(count)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
