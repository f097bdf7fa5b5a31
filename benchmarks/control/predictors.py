"""How well each predictor knows what the lowest tier loses, on labels that it was not fitted on.

`python -m benchmarks.control.predictors [--only NAME]`: Spearman's correlation in ten folds drawn by chance and in
twenty of whole sources, with intervals over labels and over sources, and how long 2 KB take. Data of ../shared/data:
the labels of SmolLM2-135M's int4 along 24 tokens, and a sample of RouteLLM's (Ong et al., arXiv 2406.18665), which say
whether Mixtral-8x7B and GPT-4 were right; and labels of 64 tokens where this repository has them.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, Figures, arguments, save, say, target
from calibration.audit.features import rank_correlation
from calibration.control.decision_latency import MAX_US, latency_us
from calibration.control.losses import Labels, read_labels
from calibration.control.predictor_choice import Sample, compare
from calibration.control.predictors.predictor import Predictor
from calibration.control.predictors.registry import EXPORTABLE, ONE_FEATURE, PREDICTORS
from calibration.control.tuning import added_losses
from calibration.errors import InputError

SEED = 20261130
_DATA = ROOT.parent / "shared" / "data"
_LABELS = ROOT / "benchmarks" / "results" / "control"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file of labels, and what of it counts."""

    path: Path
    tiers: tuple[str, str]
    measure: str
    rows: int  # drawn by chance, where there are more
    targets: tuple[float, float] | None = None  # at random, and by source


FILES = {
    "smollm2, 24 tokens": Labelled(
        _DATA / "smollm2-losses.jsonl.gz", ("int4gptq", "bf16"), "kl_cont", 2000, targets=(0.60, 0.55)
    ),
    "smollm2, 64 tokens, the likeliest": Labelled(
        _LABELS / "labels-smollm2-64.jsonl.gz", ("int4", "bf16"), "answer.kl", 2000, targets=(0.60, 0.55)
    ),
    "smollm2, 128 tokens, drawn": Labelled(
        _LABELS / "labels-smollm2-drawn.jsonl.gz", ("int4", "bf16"), "answer.kl", 2000, targets=(0.60, 0.55)
    ),
    "smollm2, 4 answers of 64 tokens, drawn": Labelled(
        _LABELS / "labels-smollm2-four.jsonl.gz", ("int4", "bf16"), "answer.kl", 2000, targets=(0.60, 0.55)
    ),
    "routellm": Labelled(_DATA / "routellm-labels.jsonl.gz", ("weak", "strong"), "", 1500),
}  # fmt: skip


def main() -> None:
    options = arguments(__doc__)
    figures: Figures = {"seed": SEED, "versions": {name: version(name) for name in ("numpy", "scipy", "scikit-learn")}}
    tables: Figures = {}
    for name, file in FILES.items():
        if options.only in name and file.path.exists():
            tables[name] = _measured(name, file, 300 if options.short else file.rows)
    targets = []
    for name, table in tables.items():
        if (bounds := FILES[name].targets) is not None:
            sums = {predictor: _sum(table["predictors"][predictor]) for predictor in EXPORTABLE}
            best = max(sums, key=sums.__getitem__)
            for split, bound in zip(("random", "by_source"), bounds, strict=True):
                value = table["predictors"][best][split]["spearman"]
                targets.append(target(f"{name}: Spearman of {best}, {split}", value, bound))
    save("predictors", {**figures, "labels": tables, "targets": targets}, options)


def _sum(row: Figures) -> float:
    """Return both correlations together, of what is quick enough to serve."""
    if row.get("latency_us", {}).get("p50", MAX_US) >= MAX_US:
        return -2.0
    return float(sum(row[split]["spearman"] for split in ("random", "by_source") if split in row))


def _measured(name: str, file: Labelled, count: int) -> Figures:
    labels, skipped = read_labels(file.path, file.tiers, file.measure)
    labels = _drawn(labels, count)
    tier = file.tiers[0]
    sample = Sample(labels, tier, added_losses(labels, file.tiers[1])[tier], SEED)
    predictors = {name: predictor for name, predictor in ONE_FEATURE.items() if name in labels.names} | PREDICTORS
    table = compare(predictors, sample, lambda predictor: say(f"{name}: {predictor}"))
    for predictor, row in table.items():
        row["latency_us"] = _latency(predictors[predictor], sample)
    return {
        "labels": len(labels), "sources": len(set(labels.sources)), "skipped": skipped,
        "predictors": table, "study": _study(file.path, labels, sample),
    }  # fmt: skip


def _drawn(labels: Labels, count: int) -> Labels:
    if len(labels) <= count:
        return labels
    rows = np.random.default_rng(SEED).permutation(len(labels))[:count]
    return Labels(
        names=labels.names,
        features=labels.features[rows],
        losses={tier: losses[rows] for tier, losses in labels.losses.items()},
        sources=tuple(labels.sources[row] for row in rows),
        groups=tuple(labels.groups[row] for row in rows),
        texts=tuple(labels.texts[row] for row in rows) if labels.texts else (),
    )


def _latency(predictor: Predictor, sample: Sample) -> Figures | None:
    """Return the time for 2 KB: through routing, or of the prediction alone where routing cannot evaluate it."""
    rows = np.arange(len(sample.labels))
    try:
        fitted = predictor.fit(sample.labels, {sample.tier: sample.losses}, [sample.tier], rows, SEED)
    except InputError:
        return None
    if (form := fitted.export()) is not None:
        return dict(latency_us(form))
    times, row = [], rows[:1]
    for _ in range(50):
        started = time.perf_counter()
        fitted.losses(sample.labels, row)
        times.append(1e6 * (time.perf_counter() - started))
    return {"p50": round(statistics.median(times), 1), "of": "the prediction of one label, without its features"}


def _study(path: Path, labels: Labels, sample: Sample) -> Figures | None:
    """Return how well the file's own out-of-fold scores do on these labels, where it has some."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        scored = {fields.get("sha256_16"): fields for fields in map(json.loads, lines) if "score_oof" in fields}
    if not scored or not set(labels.groups) <= set(scored):
        return None
    return {
        split: rank_correlation(np.array([scored[group][field] for group in labels.groups]), sample.losses)
        for split, field in (("random", "score_oof"), ("by_source", "score_oof_source"))
    }


if __name__ == "__main__":
    main()
