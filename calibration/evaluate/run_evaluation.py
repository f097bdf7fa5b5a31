"""Evaluate checkpoints: start the engine on each, take missing measures, make the report. Read this first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from dataclasses import replace as dataclass_replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from bitladder.settings.publish_section import PublishSettings
from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.evaluation_report import Incumbent, Report, TierReport
from calibration.errors import EngineFailedError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import serving
from calibration.evaluate.figures import TierFigures
from calibration.evaluate.machine import machine
from calibration.evaluate.measures.measure import FollowsReference, Measure, compare_results
from calibration.evaluate.prompt_table import PromptTable
from calibration.evaluate.store import Store
from calibration.publishing.gate import judge, worse_than_served
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
    sources: Mapping[str, str] = field(default_factory=dict)  # what is measured on, for people: name -> where from
    prompts: PromptTable = field(default_factory=PromptTable)
    force: bool = False  # measure what was measured before, too

    def following(self, reference: Results | None) -> Evaluator:
        """Return what measures the others, once the reference was measured; None if it could not be."""
        measures: list[Measure[Any]] = []
        for measure in self.measures:
            if not isinstance(measure, FollowsReference):
                measures.append(measure)
            elif reference is not None:
                measures.append(measure.following(reference[measure.name]))
        return dataclass_replace(self, measures=measures)

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
                self.store.save(measure.name, inputs, measure.encode(results[measure.name]), self._about(candidate))
        return {measure.name: results[measure.name] for measure in self.measures}  # metrics in one order in all tiers

    def stored(self, candidate: Candidate) -> dict[str, Any]:
        """Return the stored results of this checkpoint with this engine and these inputs."""
        results = {}
        for measure in self.measures:
            content = self.store.load(measure.name, self._inputs(candidate, measure))
            if content is not None:
                results[measure.name] = measure.decode(content)
        return results

    def _about(self, candidate: Candidate) -> dict[str, Any]:
        checkpoint = {"tier": candidate.name, "checkpoint": str(candidate.path), "sha256": candidate.digest}
        return checkpoint | {"engine": self.engine_version, "sources": dict(self.sources)}

    def _inputs(self, candidate: Candidate, measure: Measure[Any]) -> dict[str, Any]:
        return candidate.inputs(self.vllm, self.engine_version) | {"inputs": measure.inputs}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeader:
    """The head of a report."""

    model: str
    sources: dict[str, str]
    versions: dict[str, str]
    source_names: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # Any: JSON
    publish: PublishSettings = field(default_factory=PublishSettings)  # the limits of the verdicts


async def evaluate(
    reference: Candidate,
    candidates: Sequence[Candidate],
    evaluation: Evaluator,
    about: ReportHeader,
    served: Mapping[str, Candidate] = MappingProxyType({}),
) -> Report:
    """Measure the reference and the candidates, in this order; a failed one is named in the report, with the reason.

    `served` has what a candidate would replace, by the candidate's name: it is measured before it.

    Raises:
        EngineFailedError: all failed.

    """
    started_s = time.monotonic()
    tiers, failed = await _measure_all(reference, candidates, evaluation, served)
    if not tiers:
        raise EngineFailedError("nothing could be measured:\n" + reasons(failed))
    names = [candidate.name for candidate in candidates]
    return Report(
        model=about.model,
        reference=reference.name,
        tiers=tuple(_with_verdict(tier, about.publish) if tier.tier in names else tier for tier in tiers),
        failed=failed,
        sources=about.sources,
        source_names=about.source_names,
        versions=about.versions,
        machine=machine(),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started_s, 1),
        settings=about.settings,
    )


async def _measure_all(
    reference: Candidate, candidates: Sequence[Candidate], evaluation: Evaluator, served: Mapping[str, Candidate]
) -> tuple[list[TierReport], dict[str, str]]:
    """Return what was measured, and of what could not be measured, why."""
    tiers: list[TierReport] = []
    failed: dict[str, str] = {}
    results: dict[str, Results] = {}
    order = [checkpoint for new in candidates for checkpoint in (served.get(new.name), new) if checkpoint]
    with evaluation.steps.showing():
        for candidate in (reference, *order):
            measured: Results | None = None
            try:
                measured, baseline = await evaluation.results(candidate), results.get(reference.name)
                tier = tier_report(candidate, evaluation.measures, measured, baseline)
                evaluation.prompts.add(candidate, evaluation.measures, measured, baseline)
                tier = replace(tier, metrics=tier.metrics | evaluation.prompts.strata(tier.tier))
            except EngineFailedError as error:
                failed[candidate.name] = str(error)
                line, _, _ = failed[candidate.name].partition("\n")
                evaluation.steps.note(candidate.name, f"failed: {line}")
                continue
            finally:
                if candidate is reference:
                    evaluation = evaluation.following(measured)
            results[candidate.name] = measured
            old = served.get(candidate.name)
            if old and old.name in results:
                incumbent = _incumbent(candidate, old, evaluation.measures, results, baseline)
                tier = replace(tier, incumbent=incumbent)
            tiers.append(tier)
    return tiers, failed


def _incumbent(
    candidate: Candidate,
    old: Candidate,
    measures: Sequence[Measure[Any]],
    results: Mapping[str, Results],
    baseline: Results | None,
) -> Incumbent | None:
    """Return how a checkpoint compares with what it would replace; None where it cannot be compared."""
    new_results, old_results = results[candidate.name], results[old.name]
    try:
        parts = [
            compare_results(
                measure, new_results[name], old_results[name], baseline[name] if baseline else None, candidate
            )
            for measure in measures
            for name in (measure.name,)
        ]
    except EngineFailedError:
        return None
    return Incumbent(tier=old.name, digest=old.digest, compared=reduce(or_, parts, {}))


def _with_verdict(tier: TierReport, settings: PublishSettings) -> TierReport:
    verdict = judge(tier, settings, machine(), is_reference=False)
    worse = worse_than_served(tier, settings.limits_of(tier.tier))
    return replace(tier, verdict=replace(verdict, reasons=(*verdict.reasons, *worse)))


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
        hardware=candidate.tier.hardware,
    )
