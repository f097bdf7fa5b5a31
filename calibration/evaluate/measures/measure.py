"""What a measure is, what it is made from, and how it waits for many answers of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from calibration.artifacts.evaluation_report import Comparison
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import Asker
from calibration.evaluate.figures import TierFigures
from calibration.evaluate.heldout import HeldoutText
from calibration.terminal.progress import Advance

Result = TypeVar("Result")


class Measure(Protocol[Result]):
    """One measure of a checkpoint: asks the engine, stores its result, and makes figures of it."""

    @property
    def name(self) -> str:
        """The name in stored results and progress."""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the result depends on beside the checkpoint and the engine, as JSON."""

    async def take(self, asker: Asker, advance: Advance) -> Result: ...

    def encode(self, result: Result) -> bytes: ...

    def decode(self, content: bytes) -> Result: ...

    def figures(self, result: Result, reference: Result | None, candidate: Candidate) -> TierFigures:
        """Return the figures of a checkpoint; reference is None for the reference itself.

        Raises:
            EngineFailedError: the two results cannot be compared.

        """


@runtime_checkable
class _ComparesByReference(Protocol):
    """A measure whose metrics are against the reference already: two checkpoints are compared in how far they are.

    Of any other measure, the comparison that its figures have with a reference is taken.
    """

    def compare(self, result: Any, other: Any, reference: Any) -> dict[str, Comparison]:  # noqa: ANN401  (Result)
        """Return result - other, item by item; reference is None where it could not be measured."""


def compare_results(
    measure: Measure[Result], result: Result, other: Result, reference: Result | None, candidate: Candidate
) -> dict[str, Comparison]:
    """Return how a checkpoint differs from another one on the same items."""
    if isinstance(measure, _ComparesByReference):
        return measure.compare(result, other, reference)
    return measure.figures(result, other, candidate).compared


@runtime_checkable
class FollowsReference(Protocol):
    """A measure that is taken of the reference in one way, and of the others along what the reference did."""

    def following(self, reference: Any) -> Measure[Any]:  # noqa: ANN401  (its own result)
        """Return the measure of the others."""


@runtime_checkable
class PerPrompt(Protocol):
    """A measure that also has figures of each held-out text."""

    @property
    def field(self) -> str:
        """The field of CheckpointLosses that they are."""

    def per_prompt(self, result: Any, reference: Any) -> dict[str, Any]:  # noqa: ANN401  (its own results)
        """Return figures by the id of a text; reference is None for the reference itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """The options of the command that decide what is measured."""

    heldout: Path | None
    tokens: int
    top: int
    problems: int | None  # None: all of them where code is served, else none
    sandbox: str
    tasks: Path | None
    answers: int = 0  # of each kind
    answer_tokens: int = 64
    chat: bool | None = None  # None: through the chat template where the reference has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The measures of one file, ready to be taken."""

    measures: Sequence[Measure[Any]] = ()
    sources: dict[str, str] = field(default_factory=dict)  # what they are taken on: name -> sha256
    versions: dict[str, str] = field(default_factory=dict)  # what else can change their results
    note: str = ""  # for the user: what was decided, and how to ask for something else


class MeasureModule(Protocol):
    """A file of this folder."""

    def prepare(self, options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
        """Read and check all that the measures need, before an engine is started; no measures if none is asked for."""


def _ignore_progress(done: int, total: int | None) -> None:
    """Show nothing."""


async def gather(requests: Sequence[Coroutine[Any, Any, Result]], advance: Advance = _ignore_progress) -> list[Result]:
    """Wait for all answers at once and show how many came; when one fails, cancel the others.

    A request that went on would ask an engine that is stopped by then.
    """
    tasks = [asyncio.ensure_future(request) for request in requests]
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
