"""Evaluate checkpoints: start the engine on each, take missing measures, make the report. Read this first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any

from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.evaluation_report import Report, TierReport
from calibration.errors import EngineFailedError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import serving
from calibration.evaluate.figures import TierFigures
from calibration.evaluate.machine import machine
from calibration.evaluate.measures.measure import Measure
from calibration.evaluate.store import Store
from calibration.terminal.progress import Steps

# Name of a measure -> its result.
Results = Mapping[str, Any]
# How long an engine takes to start on the example, on two idle cores.
_STARTING_S = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Measures checkpoints, with one engine, and stores the results."""

    measures: Sequence[Measure[Any]]
    vllm: VllmSettings
    engine_version: str
    top: int
    store: Store
    steps: Steps
    force: bool = False  # measure what was measured before, too

    async def results(self, candidate: Candidate) -> Results:
        """Return all results of a checkpoint; the engine is started only if one is missing.

        Raises:
            EngineFailedError: it does not start or breaks; what was measured until then is kept.

        """
        results = {} if self.force else self.stored(candidate)
        missing = [measure for measure in self.measures if measure.name not in results]
        if not missing:
            self.steps.note(candidate.name, "measured before")
            return results
        async with AsyncExitStack() as stack:
            with self.steps.step(candidate.name, "starting the engine", expected_s=_STARTING_S):
                engine = serving(candidate.path, candidate.tier, self.vllm, self.top)
                asker = await stack.enter_async_context(engine)
            if asker.less:
                self.steps.note(candidate.name, f"the engine started with less: {asker.less}")
            for measure in missing:
                with self.steps.step(candidate.name, f"measuring {measure.name}", expected_s=None) as advance:
                    results[measure.name] = await measure.take(asker, advance)
                inputs = self._inputs(candidate, measure)
                self.store.save(measure.name, inputs, measure.encode(results[measure.name]))
        return {measure.name: results[measure.name] for measure in self.measures}  # metrics in one order in all tiers

    def stored(self, candidate: Candidate) -> dict[str, Any]:
        """Return the stored results of this checkpoint with this engine and these inputs."""
        results = {}
        for measure in self.measures:
            content = self.store.load(measure.name, self._inputs(candidate, measure))
            if content is not None:
                results[measure.name] = measure.decode(content)
        return results

    def _inputs(self, candidate: Candidate, measure: Measure[Any]) -> dict[str, Any]:
        return candidate.inputs(self.vllm, self.engine_version) | {"inputs": measure.inputs}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeader:
    """The head of a report."""

    model: str
    sources: dict[str, str]
    versions: dict[str, str]


async def evaluate(
    reference: Candidate, candidates: Sequence[Candidate], evaluation: Evaluator, about: ReportHeader
) -> Report:
    """Measure the reference and the candidates, in this order; a failed one is named in the report, with the reason.

    Raises:
        EngineFailedError: all failed.

    """
    started_s = time.monotonic()
    tiers: list[TierReport] = []
    failed: dict[str, str] = {}
    baseline: Results | None = None
    with evaluation.steps.showing():
        for candidate in (reference, *candidates):
            try:
                results = await evaluation.results(candidate)
                tiers.append(tier_report(candidate, evaluation.measures, results, baseline))
            except EngineFailedError as error:
                failed[candidate.name] = str(error)
                line, _, _ = failed[candidate.name].partition("\n")
                evaluation.steps.note(candidate.name, f"failed: {line}")
            else:
                baseline = results if candidate is reference else baseline
    if not tiers:
        raise EngineFailedError("nothing could be measured:\n" + reasons(failed))
    return Report(
        model=about.model,
        reference=reference.name,
        tiers=tuple(tiers),
        failed=failed,
        sources=about.sources,
        versions=about.versions,
        machine=machine(),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started_s, 1),
    )


def reasons(failed: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {reason}" for name, reason in failed.items())


def tier_report(
    candidate: Candidate, measures: Sequence[Measure[Any]], results: Results, baseline: Results | None
) -> TierReport:
    """Return the figures of one checkpoint; baseline has the reference's results, and is None for the reference.

    Raises:
        EngineFailedError: the checkpoint cannot be compared with the reference.

    """
    parts = [
        measure.figures(results[measure.name], baseline[measure.name] if baseline else None, candidate)
        for measure in measures
    ]
    figures = reduce(or_, parts, TierFigures())
    return TierReport(
        tier=candidate.name,
        checkpoint=str(candidate.path),
        digest=candidate.digest,
        metrics=figures.metrics,
        recovery=figures.recovery,
        compared=figures.compared,
    )
