"""Monty: a Python interpreter in Rust that has no files, no network and no processes to begin with.

It needs nothing of the kernel, so it runs where bubblewrap may not make namespaces. It is a subset of Python: a few
correct answers fail in it, and figures taken with it stand beside each other, not beside published ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic_monty import Monty, MontyError, MontySession, ResourceLimits

from calibration.sandbox.program import Judgement, Program

_FEED_S = 5.0
# From outside, for a worker that no longer keeps its own limits; it holds for one call into the sandbox.
_REQUEST_S = 10.0
_LIMITS = ResourceLimits(max_memory=256 * 2**20, max_recursion_depth=500)


@dataclass(frozen=True, slots=True)
class MontySandbox:
    """Judges with two sessions: one has the completion, the other one the checks."""

    feed_s: float = _FEED_S
    name: str = field(default="monty", init=False)

    def judge(self, program: Program) -> Judgement:
        limits = ResourceLimits(**_LIMITS, max_feed_duration_secs=self.feed_s)
        try:
            with (
                Monty(max_processes=2, request_timeout=_REQUEST_S) as pool,
                pool.checkout(limits=limits) as candidate,
                pool.checkout(limits=limits) as judge,
            ):
                _check(program, candidate, judge)
        except _CandidateError as error:
            return Judgement(passed=False, reason=str(error))
        except MontyError as error:
            return Judgement(passed=False, reason=_reason(error))
        return Judgement(passed=True)


class _CandidateError(Exception):
    """The completion did not answer a call."""


def _check(program: Program, candidate: MontySession, judge: MontySession) -> None:
    """Return when every check held."""
    failure: list[str] = []

    def feed(code: str, **inputs: Any) -> Any:  # noqa: ANN401  (any value of a program)
        try:
            return candidate.feed_run(code, inputs=inputs, print_callback=_drop)
        except (MontyError, ValueError, RuntimeError) as error:  # the last two: not plain data
            failure.append(_reason(error))
            raise _CandidateError(failure[0]) from error

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (any value of a program)
        if failure:  # the checks caught it and asked again
            raise _CandidateError(failure[0])
        return feed(f"{program.entry_point}(*args__, **kwargs__)", args__=args, kwargs__=kwargs)

    feed(program.prompt + program.completion)
    judge.feed_run(program.prompt, print_callback=_drop)
    judge.feed_run(program.test, print_callback=_drop)
    judge.feed_run("check(candidate)", external_lookup={"candidate": call}, print_callback=_drop)
    if failure:
        raise _CandidateError(failure[0])


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


def _drop(stream: str, text: str) -> None:
    """Let what the code prints go nowhere."""
