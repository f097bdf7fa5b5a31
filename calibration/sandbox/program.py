"""The program that a sandbox runs, and its judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A problem of HumanEval's shape with an answer of a model."""

    prompt: str  # ours: helpers, signature and docstring: valid by itself, so that checks can use the helpers
    completion: str  # the model's: what follows the prompt
    test: str  # ours: defines check(candidate)
    entry_point: str  # the function that is checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether every check passed, and if not, why."""

    passed: bool
    reason: str = ""


class Sandbox(Protocol):
    """Judges programs.

    Every sandbox runs the completion in one place and the checks in another. Values go between them as plain data: so
    a completion cannot end the checks, patch them, read what they expect, or return an object that equals everything.
    """

    @property
    def name(self) -> str:
        """How it is called on the command line and in results."""

    def judge(self, program: Program) -> Judgement:
        """Run the checks on the completion. Safe to call from many threads."""
