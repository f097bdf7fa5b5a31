"""Choose what an evaluation measures, from the options of the command."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from calibration.artifacts.metrics import METRICS
from calibration.evaluate.heldout import HeldoutText, heldout_digest, packaged_texts, read_heldout
from calibration.evaluate.measures.measure import EvaluationOptions, Measure, MeasureModule


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The measures, what they are taken on (name -> sha256), and the versions that they depend on."""

    measures: list[Measure[Any]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    source_names: dict[str, str] = field(default_factory=dict)  # where a source came from: a path, or `packaged`
    versions: dict[str, str] = field(default_factory=dict)
    texts: list[HeldoutText] = field(default_factory=list)  # that are measured on
    notes: list[str] = field(default_factory=list)  # for the user
    own_texts: list[HeldoutText] = field(default_factory=list)  # held-out text of the user


def choose_measures(options: EvaluationOptions) -> EvaluationPlan:
    """Read all files and try the sandbox before an engine is started; measures come in the order of METRICS.

    Raises:
        InputError: a file cannot be used, or there is no sandbox for code.

    """
    own_texts = read_heldout(options.heldout.expanduser()) if options.heldout else []
    texts = own_texts or packaged_texts()
    files = {"heldout": options.heldout, "tasks": options.tasks}
    paths = {name: str(path.expanduser().resolve()) for name, path in files.items() if path}
    plan = EvaluationPlan(
        sources={"heldout": heldout_digest(texts)},
        source_names={"heldout": "packaged"} | paths,
        texts=texts,
        own_texts=own_texts,
    )
    for name in dict.fromkeys(metric.measure for metric in METRICS.values()):
        prepared = cast(MeasureModule, import_module(name)).prepare(options, texts)
        plan.measures.extend(prepared.measures)
        plan.sources.update(prepared.sources)
        plan.versions.update(prepared.versions)
        plan.notes.extend([prepared.note] if prepared.note else [])
    return plan
