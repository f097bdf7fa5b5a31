"""The whole of `calibrate tune`, apart from its command line. Read this first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from calibration.artifacts.digest import file_digest
from calibration.artifacts.folder import write_output
from calibration.control.losses import read_labels
from calibration.control.predictor_choice import Sample, compare
from calibration.control.predictors.registry import EXPORTABLE, ONE_FEATURE, PREDICTORS
from calibration.control.tuning import AUTO, Question, added_losses, tune
from calibration.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for."""

    labels: Path
    out: Path
    question: Question
    compare: bool = True  # cross-validate the predictors on all labels, too: for the table, the policy is the same
    loads: Mapping[str, Any] = field(default_factory=dict)  # how the costs were measured, if they were


def run_tuning(options: Options, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:  # Any: JSON
    """Write the policy's file, and return all figures; `policy` is null where the labels cannot promise it.

    Raises:
        InputError: a label or an option is wrong.

    """
    question, out = options.question, options.out
    if question.predictor not in (AUTO, *EXPORTABLE):
        known = ", ".join((AUTO, *EXPORTABLE))
        hint = ": routing cannot evaluate it" if question.predictor in PREDICTORS else ""
        raise InputError(f"--predictor must be one of {known}, got {question.predictor!r}{hint}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out must be a file in a folder that exists, got {str(out)!r}")
    labels, skipped = read_labels(options.labels, question.ladder, question.measure)
    form, figures = tune(labels, question, lambda name: say(f"choosing: {name}"))
    if options.compare:
        tier = figures["ladder"][0]
        sample = Sample(labels, tier, added_losses(labels, question.ladder[-1])[tier], question.seed)
        shown = EXPORTABLE if question.predictor == AUTO else (question.predictor,)
        compared = {**{name: predictor for name, predictor in ONE_FEATURE.items() if name in labels.names},
                    **{name: PREDICTORS[name] for name in (*shown, "knn", "clusters")}}  # fmt: skip
        figures["predictors"] = compare(compared, sample, lambda name: say(f"comparing on held-out labels: {name}"))
    if form is not None:
        form = msgspec.structs.replace(form, labels=file_digest(options.labels))
        write_output(out, msgspec.json.format(msgspec.json.encode(form), indent=1) + b"\n", "--out")
    file = {"policy": str(out) if form else None, "lines_without_every_tier": skipped}
    return {**file, **figures, "loads": dict(options.loads)}
