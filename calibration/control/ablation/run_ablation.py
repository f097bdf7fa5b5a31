"""Compare every policy on labels that none of them was fitted on. Read this first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from bitladder.policy_forms import Form, LearnedForm
from calibration.control.ablation.comparison import Comparison, Figures, Measured, Policy
from calibration.control.ablation.cost_curves import Numbers
from calibration.control.ablation.gap_recovered import gap_recovered
from calibration.control.ablation.held_out import cascades, of_form, predictors_of, routers
from calibration.control.ablation.label_extras import Beside, read_beside
from calibration.control.ablation.policy_latency import latencies_us
from calibration.control.ablation.resampling import FOLDS, Resamples, source_folds
from calibration.control.ablation.served import ARTICLE, check_form, chosen_by, policy_of_form
from calibration.control.losses import Labels, read_labels
from calibration.control.predictor_choice import folds_of
from calibration.errors import InputError
from calibration.terminal.progress import Advance

MIN_LABELS, MAX_LABELS = 50, 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is compared."""

    costs: dict[str, float]  # of each tier, in any order; the dearest one is the top
    measure: str
    agreement: str  # a loss between 0 and 1, beside it
    sure: tuple[str, ...]  # in the lowest tier's entry: how sure it was of its answer
    policy: Form | None
    resamples: int
    seed: int

    @property
    def ladder(self) -> tuple[str, ...]:
        return tuple(sorted(self.costs, key=lambda tier: self.costs[tier]))


def ablate(path: Path, question: Question, advance: Advance = lambda done, total: None) -> Figures:
    """Return the figures of all policies, once for folds drawn by chance and once for folds of whole sources.

    Raises:
        InputError: the labels are too few, too many, or wrong.

    """
    ladder = question.ladder
    labels, skipped = read_labels(path, ladder, question.measure)
    _check(path, labels, question)
    beside = read_beside(path, ladder, question.measure, question.agreement, question.sure)
    measured = measured_of(labels, beside, question)
    resamples = Resamples(labels.sources, question.resamples, question.seed, labels.groups)
    comparison = Comparison(measured, resamples)
    folds = {
        "random": folds_of(labels.groups, FOLDS, question.seed),
        "source": source_folds(labels.sources, question.seed),
    }
    known = {split: placed for split, placed in folds.items() if placed is not None}
    left_out = {} if "source" in known else {"folds by source": "all labels are from one source"}
    steps = _steps(advance, len(known) * (len(predictors_of(labels, measured.kinds)) + 1))
    splits: Figures = {}
    latencies: Figures = {}
    for split, placed in known.items():
        made = routers(labels, measured, placed, question.seed, steps)
        left_out |= made.left_out
        if isinstance(question.policy, LearnedForm):
            made.policies.append(of_form(question.policy, labels, measured))
        answered = cascades(labels, measured, placed, question.seed, beside.sure)
        splits[split] = _compared(comparison, made.policies, answered)
        if (wrong := _right_or_wrong(labels, ladder)) is not None:
            splits[split]["routellm"] = _as_routellm(made.policies, wrong, resamples)
        latencies = latencies or latencies_us(made.fitted, labels)
        steps()
    return {
        **_facts(labels, beside, question),
        "lines_without_every_tier": skipped,
        "resamples": resamples.count,
        "singles": comparison.singles(),
        "article": comparison.point(measured.article),
        "policy": _of_policy(question.policy, comparison, labels, ladder),
        "splits": splits,
        "latency_us": latencies,
        "left_out": left_out,
    }


def _facts(labels: Labels, beside: Beside, question: Question) -> Figures:
    return {
        "labels": len(labels),
        "sources": len(set(labels.sources)),
        "kinds": len(set(beside.kinds)),
        "ladder": list(question.ladder),
        "costs": question.costs,
        "measure": question.measure,
        "agreement": question.agreement if beside.others is not None else None,
        "cascades": list(beside.sure),
        "seed": question.seed,
    }


def _steps(advance: Advance, total: int) -> Callable[[], None]:
    done = count()
    return lambda: advance(next(done) + 1, total)


def _check(path: Path, labels: Labels, question: Question) -> None:
    lowest, top = question.costs[question.ladder[0]], question.costs[question.ladder[-1]]
    if lowest == top:
        raise InputError(f"--cost: all tiers cost {top:g}, expected a top that is dearer")
    if not MIN_LABELS <= len(labels) <= MAX_LABELS:
        raise InputError(
            f"{path}: {len(labels):,} labels have a loss of every tier, expected {MIN_LABELS} to {MAX_LABELS:,}"
        )
    if (texts := len(set(labels.groups))) < FOLDS:
        raise InputError(f"{path}: labels are of {texts} texts, expected {FOLDS} or more")
    if question.policy is not None:
        check_form(question.policy, labels, question.ladder)


def measured_of(labels: Labels, beside: Beside, question: Question) -> Measured:
    ladder = question.ladder
    of_top = labels.losses.get(ladder[-1], np.zeros(len(labels)))
    return Measured(
        ladder=ladder,
        costs=np.array([question.costs[tier] for tier in ladder]),
        losses=np.array([labels.losses.get(tier, of_top) - of_top for tier in ladder]).T,
        others=beside.others,
        article=chosen_by(ARTICLE, labels, ladder) if "entropy" in labels.names else None,
        kinds=beside.kinds,
    )


def _compared(comparison: Comparison, routers: list[Policy], cascades: list[Policy]) -> Figures:
    at_the_start = [policy for policy in routers if policy.differs_within_kinds]  # what knows the kind cannot serve
    best = max(at_the_start, key=lambda policy: float(np.nan_to_num(comparison.gain(policy), nan=-np.inf)))
    fixed = [comparison.random, comparison.oracle]
    figures = {policy.name: comparison.figures(policy) for policy in [*fixed, *routers]}
    figures |= {policy.name: comparison.figures(policy, best) for policy in cascades}
    return {"best_router": best.name, "policies": figures}


def _of_policy(form: Form | None, comparison: Comparison, labels: Labels, ladder: tuple[str, ...]) -> Figures | None:
    return None if form is None else comparison.point(chosen_by(policy_of_form(form), labels, ladder))


def _right_or_wrong(labels: Labels, ladder: tuple[str, ...]) -> Numbers | None:
    """Return whether each of two tiers was wrong, where labels say nothing else."""
    if len(ladder) > 2 or not all(tier in labels.losses for tier in ladder):
        return None
    wrong = np.array([labels.losses[tier] for tier in ladder]).T
    return wrong if np.isin(wrong, (0.0, 1.0)).all() else None


def _as_routellm(policies: list[Policy], wrong: Numbers, resamples: Resamples) -> Figures:
    return {
        policy.name: {
            name: resamples.estimate(values)
            for name, values in gap_recovered(policy.scores, wrong, resamples.weights).items()
        }
        for policy in policies
        if policy.scores is not None
    }
