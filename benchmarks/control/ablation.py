"""What every policy is worth on public labels: the study of the example ladder, RouteLLM's, and the ladder's own.

`python -m benchmarks.control.ablation [--data FOLDER] [--out FOLDER]`

- study: SmolLM2-135M at GPTQ's int4 against bf16, 24 tokens of the answer; the example ladder's prices per hour of int4
  and fp8, as costs of int4 and of the reference. The scores that the study itself published stand beside.
- int4 and bf16: the example's tiers, the mean over four drawn answers of 64 tokens.
- int4, int8 and fp8: 128 tokens of one drawn answer.
- routellm: Mixtral-8x7B and GPT-4, right or wrong on MMLU and GSM8K (Ong et al., arXiv 2406.18665; labels of
  lm-sys/RouteLLM 0b64fdaf), with that paper's tables 2 and 3.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, save, say, target
from calibration.control.ablation.comparison import Comparison, Policy
from calibration.control.ablation.cost_curves import by_limit
from calibration.control.ablation.gap_recovered import gap_recovered
from calibration.control.ablation.label_extras import read_beside
from calibration.control.ablation.resampling import Resamples
from calibration.control.ablation.run_ablation import Question, ablate, measured_of, report_of, study_of
from calibration.control.losses import read_labels
from calibration.control.predictors.registry import EXPORTABLE

Figures = dict[str, Any]
SEED = 20261130
DATA = ROOT.parent / "shared" / "data"
# Labels by ladder, and the example's prices per hour; the reference stands for the top, at the price of the dearest.
LADDERS = {
    "int4 and bf16": ("labels-smollm2-four", {"int4": 0.7, "bf16": 3.2}),
    "int4, int8 and fp8": ("labels-smollm2-drawn", {"int4": 0.7, "int8": 1.0, "fp8": 3.2}),
}
LABELS = ROOT / "benchmarks" / "results" / "control"
# Ong et al. (2024), arXiv 2406.18665v4, tables 2 and 3: CPT(50 %), CPT(80 %), APGR of routers trained on Chatbot Arena,
# and with labels added: on MMLU from MMLU's validation split, on GSM8K by a GPT-4 judge of other prompts.
PUBLISHED = {
    "mmlu": {
        "random": (0.5007, 0.7993, 0.500),
        "arena: BERT": (0.4943, 0.7780, 0.502), "arena: causal LLM": (0.4888, 0.7793, 0.499),
        "arena: matrix factorization": (0.4500, 0.7686, 0.524), "arena: SW ranking": (0.5582, 0.8025, 0.473),
        "with MMLU's labels: BERT": (0.4130, 0.7220, 0.572),
        "with MMLU's labels: causal LLM": (0.3549, 0.7031, 0.600),
        "with MMLU's labels: matrix factorization": (0.3546, 0.7140, 0.597),
        "with MMLU's labels: SW ranking": (0.3540, 0.7155, 0.603),
    },
    "gsm8k": {
        "random": (0.5000, 0.8008, 0.497),
        "arena: BERT": (0.5878, 0.8384, 0.438), "arena: causal LLM": (0.5609, 0.8356, 0.461),
        "arena: matrix factorization": (0.5359, 0.8524, 0.4746), "arena: SW ranking": (0.5443, 0.8211, 0.4753),
        "with a judge's labels: BERT": (0.4476, 0.7909, 0.531),
        "with a judge's labels: causal LLM": (0.3364, 0.6326, 0.622),
        "with a judge's labels: matrix factorization": (0.3882, 0.7262, 0.565),
        "with a judge's labels: SW ranking": (0.4121, 0.7220, 0.568),
    },
}  # fmt: skip


def question_of(costs: dict[str, float], measure: str, agreement: str, *sure: str) -> Question:
    return Question(
        costs=costs, measure=measure, agreement=agreement, sure=sure, policy=None, resamples=1000, seed=SEED
    )


def study(path: Path) -> Figures:
    question = question_of({"int4gptq": 0.7, "bf16": 3.2}, "kl_cont", "dis_cont", "ent_cont")
    figures = compact(ablate(path, question))
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = [line for line in map(json.loads, stream) if "int4gptq" in line]
    labels, _ = read_labels(path, question.ladder, question.measure)
    beside = read_beside(path, question.ladder, question.measure, question.agreement, ())
    measured = measured_of(labels, beside, question)
    comparison = Comparison(measured, Resamples(labels.sources, question.resamples, SEED, labels.groups))
    for split, name in (("random", "score_oof"), ("source", "score_oof_source")):
        scores = np.array([line[name] for line in lines])
        family = by_limit(scores[:, None], measured.costs, measured.losses)
        judged = comparison.figures(Policy(name=name, family=family, scores=scores))
        figures["splits"][split]["policies"]["the study's own scores"] = without_curve(judged)
    return figures


def routellm(path: Path) -> Figures:
    """Return the figures of the whole file, and for each benchmark alone APGR and CPT beside the published ones.

    By source, a subject of MMLU is predicted by labels of other subjects and GSM8K, and GSM8K by labels of MMLU alone.
    """
    question = question_of({"weak": 0.24, "strong": 24.7}, "wrong", "wrong")  # $ per million tokens, as in that paper
    labelled = study_of(path, question)
    fitted = labelled.routers()
    figures = compact(report_of(labelled, fitted))
    wrong = np.array([labelled.labels.losses[tier] for tier in question.ladder]).T
    is_gsm8k = np.array([source.startswith("gsm8k") for source in labelled.labels.sources])
    figures["published"] = PUBLISHED
    figures["benchmarks"] = {}
    for split, made in fitted.items():
        for name, rows in (("mmlu", np.flatnonzero(~is_gsm8k)), ("gsm8k", np.flatnonzero(is_gsm8k))):
            scores = {policy.name: policy.scores for policy in made.policies if policy.scores is not None}
            of_split = {policy: _gap(values[rows], wrong[rows]) for policy, values in scores.items()}
            figures["benchmarks"].setdefault(name, {"labels": len(rows)})[split] = of_split
    return figures


def _gap(scores: NDArray[np.float64], wrong: NDArray[np.float64]) -> Figures:
    resamples = Resamples(["all"] * len(scores), 200, SEED)
    judged = gap_recovered(scores, wrong, resamples.weights)
    return {name: resamples.estimate(values) for name, values in judged.items()}


def compact(figures: Figures) -> Figures:
    """Return figures without the points of curves, which the report has."""
    for split in figures["splits"].values():
        split["policies"] = {name: without_curve(policy) for name, policy in split["policies"].items()}
    return figures


def without_curve(policy: Mapping[str, Any]) -> Figures:
    kept = {name: value for name, value in policy.items() if name != "curve"}
    if within := kept["within_kinds"]:
        kept["within_kinds"] = {name: value for name, value in within.items() if name != "kinds"}
    return kept


def targets_of(name: str, figures: Figures) -> list[Figures]:
    """Return the targets on sources that were not fitted on, by the router that can be served and is best by chance."""
    by_chance, by_source = figures["splits"]["random"], figures["splits"]["source"]
    served = [policy for policy in EXPORTABLE if policy in by_chance["policies"] and policy != "ridge-all"]  # too slow
    best = max(served, key=lambda policy: value(by_chance["policies"][policy], "area_share") or 0.0)
    policies = by_source["policies"]
    router = policies[best]

    shares = [value(policy, "equal_agreement") for policy in (router, policies["random"])]
    times = shares[0] / shares[1] if shares[0] is not None and shares[1] else None
    wanted = (
        ("correlation by chance", value(by_chance["policies"][best], "spearman", "loss"), 0.60, False),
        ("correlation by source", value(router, "spearman", "loss"), 0.55, False),
        ("of the article's loss at its cost", value(router, "at_article_cost", "of_article"), 0.75, True),
        ("of the oracle's area", value(router, "area_share"), 0.5, False),
        ("times random's share on the lowest tier at equal agreement", times, 3.0, False),
    )
    cascades = {
        policy: value(judged, "at_article_cost", "of_best_router")
        for policy, judged in policies.items()
        if policy.startswith(("cascade", "stacked"))
    }
    return [
        target(f"{name}, {best}: {what}", measured, bound, at_most=at_most)
        for what, measured, bound, at_most in wanted
        if measured is not None
    ] + [
        target(f"{name}, {policy}: of the best router's loss", measured, 0.667, at_most=True)
        for policy, measured in cascades.items()
        if measured is not None
    ]


def value(figures: Figures, *names: str) -> float | None:
    for name in names:
        figures = figures[name]
        if figures is None:
            return None
    return float(figures["value"])


def ladders() -> Figures:
    figures: Figures = {}
    for name, (file, costs) in LADDERS.items():
        question = question_of(costs, "answer.kl", "answer.flips", "own.entropy", "own.margin")
        figures[name] = {"file": file, **compact(ablate(LABELS / f"{file}.jsonl.gz", question))}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", choices=("study", "ladder", "routellm"), help="one part: each has a file of its own")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench")
    options = parser.parse_args()
    options.short = False
    parts: dict[str, Callable[[], Figures]] = {
        "study": lambda: {"study": study(options.data / "smollm2-losses.jsonl.gz")},
        "ladder": ladders,
        "routellm": lambda: {"routellm": routellm(options.data / "routellm-labels.jsonl.gz")},
    }
    versions = {name: version(name) for name in ("bitladder", "numpy", "scikit-learn", "scipy")}
    for part, run in parts.items():
        if options.only in (None, part):
            say(part)
            figures = run()
            rows = [row for name, judged in figures.items() if part != "routellm" for row in targets_of(name, judged)]
            save(f"ablation_{part}", {"seed": SEED, "versions": versions, **figures, "targets": rows}, options)


if __name__ == "__main__":
    main()
