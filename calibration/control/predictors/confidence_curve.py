"""What a tier's margin says of its answer: the calibration file of a cascade (docs/routing.md), fitted to labels.

The fit is isotonic: the confidence never falls where the margin rises. What it is worth is judged on labels that each
fit did not see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from bitladder.routing.cascade import Curve
from calibration.control.labelling.label_losses import BEGINNINGS
from calibration.control.losses import number_along_one, number_at
from calibration.errors import InputError
from calibration.statistics import wilson
from calibration.texts.jsonl import read_lines

Numbers = NDArray[np.float64]
MIN_LABELS = 50
_FOLDS, _BINS, _DRAWS = 5, 10, 200
_DIGITS = 4  # as serving rounds a confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a curve is to say."""

    measure: str  # the loss
    threshold: float  # an answer that loses more is not good
    accept: float  # the confidence from which an answer would be kept
    after: int | None  # of the first so many tokens; None: of the whole answer
    seed: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one tier: how sure it was of them, whether they are good, and which are to the same text."""

    margins: Numbers
    good: NDArray[np.bool_]
    texts: NDArray[np.intp]
    left_out: int  # lines that do not say it


def read_answers(path: Path, tier: str, aim: Aim) -> Answers:
    """Read what labels say of a tier.

    Raises:
        InputError: the labels cannot be read, or too few of them say it.

    """
    lines = read_lines(path, "label", lambda line, where: _fields(line, where, tier))
    rows = [(text, _margin(entry, aim.after), number_along_one(entry, aim.measure)) for text, entry in lines]
    whole = [(text, margin, loss) for text, margin, loss in rows if margin is not None and loss is not None]
    if len(whole) < MIN_LABELS:
        needed = f"own.beginnings.{aim.after}.margin" if aim.after else "own.margin"
        beginnings = f" (labels have beginnings of {', '.join(map(str, BEGINNINGS))} tokens)" if aim.after else ""
        raise InputError(
            f"{path}: {len(whole)} of {len(rows)} lines have {needed} and {aim.measure} of {tier!r}, expected at "
            f"least {MIN_LABELS}{beginnings}"
        )
    _, texts = np.unique([text for text, _, _ in whole], return_inverse=True)
    margins, losses = (np.array([row[at] for row in whole], float) for at in (1, 2))
    return Answers(margins, losses <= aim.threshold, texts, len(rows) - len(whole))


def fit_curve(answers: Answers, aim: Aim) -> tuple[Curve, dict[str, Any]]:  # Any: JSON
    """Return the curve of all labels, and what such curves are worth on labels that were not fitted on."""
    held_out = np.empty(len(answers.good))
    unique = np.random.default_rng(aim.seed).permutation(int(answers.texts.max()) + 1)
    folds = unique[answers.texts] % _FOLDS
    for fold in range(_FOLDS):
        seen = folds != fold
        held_out[~seen] = _fitted(answers.margins[seen], answers.good[seen]).predict(answers.margins[~seen])
    kept = np.round(held_out, _DIGITS) >= aim.accept
    counts = int(answers.good[kept].sum()), int(kept.sum())
    draws = np.random.default_rng(aim.seed).random((_DRAWS, len(held_out))) < held_out
    figures = {
        "labels": len(answers.good),
        "left_out": answers.left_out,
        "good": float(answers.good.mean()),
        "calibration_error": calibration_error(held_out, answers.good),
        "calibration_error_by_chance": float(np.mean([calibration_error(held_out, drawn) for drawn in draws])),
        "auc": None
        if answers.good.all() or not answers.good.any()
        else float(roc_auc_score(answers.good, answers.margins)),
        "kept": float(kept.mean()),
        "good_of_kept": counts[0] / counts[1] if counts[1] else None,
        "good_of_kept_interval": wilson(*counts) if counts[1] else None,
    }
    return _curve(_fitted(answers.margins, answers.good), aim.after), figures


def calibration_error(confidences: Numbers, good: NDArray[np.bool_]) -> float:
    """Return how far confidences are from what came true, on average over bins of equally many answers."""
    bins = np.array_split(np.argsort(confidences, kind="stable"), _BINS)
    gaps = [abs(float(confidences[rows].mean() - good[rows].mean())) * len(rows) for rows in bins if len(rows)]
    return sum(gaps) / len(good)


def calibration_file(model: str, curves: Mapping[str, Curve]) -> bytes:
    """Return a calibration file that has these curves of a model's tiers."""
    tiers = {
        tier: ({} if curve.after_tokens is None else {"after_tokens": curve.after_tokens})
        | {"margins": curve.margins, "confidences": curve.confidences}
        for tier, curve in curves.items()
    }
    return json.dumps({"format": 1, "statistic": "mean", "models": {model: tiers}}).encode() + b"\n"


def _fitted(margins: Numbers, good: NDArray[np.bool_]) -> Any:  # noqa: ANN401  (scikit-learn has no types)
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(margins, good.astype(float))


def _curve(fitted: Any, after: int | None) -> Curve:  # noqa: ANN401
    points: dict[float, float] = {}
    for margin, confidence in zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True):
        points.setdefault(round(margin, 6), round(confidence, _DIGITS))
    return Curve(after_tokens=after, margins=list(points), confidences=list(points.values()))


def _fields(line: str, where: str, tier: str) -> tuple[str, dict[str, Any]]:  # Any: JSON
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    tiers = fields.get("tiers", fields) if isinstance(fields, dict) else None
    if not isinstance(tiers, dict):
        raise InputError(f"{where}: expected an object of a label, got {line[:80]!r}")
    text = next((str(fields[name]) for name in ("sha256", "id", "prompt") if fields.get(name) is not None), where)
    entry = tiers.get(tier)
    return text, entry if isinstance(entry, dict) else {}


def _margin(entry: Mapping[str, Any], after: int | None) -> float | None:
    """Return the mean margin of an answer's beginning; of all of it where it has no more tokens, as serving has it."""
    tokens = number_at(entry, "own.tokens")
    if after is None or (tokens is not None and tokens <= after):
        return number_at(entry, "own.margin")
    return number_at(entry, f"own.beginnings.{after}.margin")
