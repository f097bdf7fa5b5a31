"""Compare every policy on labels that none of them was fitted on. Read this first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from bitladder.policy_forms import Form, LearnedForm
from calibration.artifacts.digest import file_digest
from calibration.control.ablation.comparison import FILE, Comparison, Figures, Measured, Policy
from calibration.control.ablation.cost_curves import Numbers
from calibration.control.ablation.early_answers import SeenAnswers, seen_answers
from calibration.control.ablation.gap_recovered import gap_recovered
from calibration.control.ablation.handing_over import cascades, stacks
from calibration.control.ablation.held_out import Routers, of_form, predictors_of, routers
from calibration.control.ablation.label_extras import Beside, read_beside
from calibration.control.ablation.no_loss import nothing_left, nothing_lost
from calibration.control.ablation.policy_latency import latencies_us
from calibration.control.ablation.resampling import FOLDS, Resamples, Rows, source_folds
from calibration.control.ablation.served import ARTICLE, check_form, chosen_by, policy_of_form
from calibration.control.ablation.stacking import MIN_FOLDS
from calibration.control.losses import Labels, read_labels
from calibration.control.predictor_choice import folds_of
from calibration.errors import InputError
from calibration.terminal.progress import Advance

MIN_LABELS, MAX_LABELS = 50, 50_000
PROMPT_WEIGHT = 0.25


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
    prompt_weight: float = PROMPT_WEIGHT  # what a token of the prompt costs, where one of the answer costs 1

    @property
    def ladder(self) -> tuple[str, ...]:
        return tuple(sorted(self.costs, key=lambda tier: self.costs[tier]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Labels, and how they are held out."""

    question: Question
    labels: Labels
    skipped: int  # lines without a loss of every tier
    beside: Beside
    answers: SeenAnswers
    measured: Measured
    folds: dict[str, Rows]  # drawn by chance, and of whole sources where there are two
    fitted_here: bool = False  # the policy's file, on these very labels

    def routers(self, step: Callable[[], None] = lambda: None) -> dict[str, Routers]:
        """Return what predicts before anybody answers, fitted for each split; nothing where nothing is lost."""
        question, fitted = self.question, {}
        for split, folds in self.folds.items() if self.measured.losses.any() else ():
            fitted[split] = routers(self.labels, self.measured, folds, question.seed, step)
            if isinstance(question.policy, LearnedForm):
                fitted[split].policies.append(of_form(question.policy, self.labels, self.measured))
        return fitted


def study_of(path: Path, question: Question) -> Study:
    """Read labels.

    Raises:
        InputError: the labels are too few, too many, or wrong.

    """
    ladder = question.ladder
    labels, skipped = read_labels(path, ladder, question.measure)
    _check(path, labels, question)
    beside = read_beside(path, ladder, question.measure, question.agreement, question.sure)
    placed = {
        "random": folds_of(labels.groups, FOLDS, question.seed),
        "source": source_folds(labels.sources, question.seed),
    }
    return Study(
        question=question,
        labels=labels,
        skipped=skipped,
        beside=beside,
        answers=seen_answers(beside, labels, question.prompt_weight),
        measured=measured_of(labels, beside, question),
        folds={split: of_split for split, of_split in placed.items() if of_split is not None},
        fitted_here=isinstance(question.policy, LearnedForm) and question.policy.labels == file_digest(path),
    )


def ablate(path: Path, question: Question, advance: Advance = lambda done, total: None) -> Figures:
    """Return the figures of all policies, once for folds drawn by chance and once for folds of whole sources.

    Raises:
        InputError: the labels are too few, too many, or wrong.

    """
    study = study_of(path, question)
    steps = _steps(advance, len(study.folds) * (len(predictors_of(study.labels, study.measured.kinds)) + 1))
    return report_of(study, study.routers(steps), steps)


def report_of(study: Study, fitted: Mapping[str, Routers], step: Callable[[], None] = lambda: None) -> Figures:
    """Return the figures of a study, by what was fitted for each split."""
    question, labels = study.question, study.labels
    resamples = Resamples(labels.sources, question.resamples, question.seed, labels.groups)
    comparison = Comparison(study.measured, resamples)
    splits: Figures = {}
    for split, made in fitted.items():
        splits[split] = _compared(study, split, made, comparison)
        if (wrong := _right_or_wrong(labels, question.ladder)) is not None:
            splits[split]["routellm"] = _as_routellm(made.policies, wrong, resamples)
        step()
    return {
        **_facts(study),
        "resamples": resamples.count,
        "singles": comparison.singles(),
        "article": comparison.point(study.measured.article),
        "policy": _of_policy(question.policy, comparison, labels, question.ladder),
        "splits": splits,
        "latency_us": next((latencies_us(made.fitted, labels) for made in fitted.values()), {}),
        "left_out": _left_out(study, fitted),
    }


def _facts(study: Study) -> Figures:
    question, beside = study.question, study.beside
    return {
        "labels": len(study.labels),
        "lines_without_every_tier": study.skipped,
        "sources": len(set(study.labels.sources)),
        "kinds": len(set(beside.kinds)),
        "ladder": list(question.ladder),
        "costs": question.costs,
        "measure": question.measure,
        "agreement": question.agreement if beside.others is not None else None,
        "cascades": list(beside.sure),
        "prompt_weight": question.prompt_weight,
        "spent_after_tokens": {str(seen.tokens): round(float(seen.spent.mean()), 4) for seen in study.answers.early},
        "nothing_lost": nothing_lost(study.measured, question.measure),
        "nothing_left": nothing_left(study.measured, question.measure),
        "fitted_here": study.fitted_here,
        "seed": question.seed,
    }


def _left_out(study: Study, fitted: Mapping[str, Routers]) -> dict[str, str]:
    reasons = {} if "source" in study.folds else {"folds by source": "all labels are from one source"}
    for made in fitted.values():
        reasons |= made.left_out
    for split, folds in study.folds.items():
        if study.answers.early and folds.max() + 1 < MIN_FOLDS:
            reasons[f"stacked policies, by {split}"] = f"they take {MIN_FOLDS} sources or more"
    return reasons | study.answers.left_out


def _steps(advance: Advance, total: int) -> Callable[[], None]:
    done = count()
    return lambda: advance(next(done) + 1, total)


def _check(path: Path, labels: Labels, question: Question) -> None:
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


def _compared(study: Study, split: str, made: Routers, comparison: Comparison) -> Figures:
    labels, measured, folds, seed = study.labels, study.measured, study.folds[split], study.question.seed
    answered = cascades(labels, measured, folds, seed, [study.answers.whole, *study.answers.early])
    answered += stacks(labels, measured, folds, seed, study.answers.early)
    # What knows the kind cannot serve, and a file may have been fitted on these labels.
    at_the_start = [policy for policy in made.policies if policy.differs_within_kinds and policy.name != FILE]
    best = max(at_the_start, key=lambda policy: float(np.nan_to_num(comparison.gain(policy), nan=-np.inf)))
    figures = {"random": comparison.figures(comparison.random), "oracle": comparison.figures(comparison.oracle, best)}
    figures |= {policy.name: comparison.figures(policy) for policy in made.policies}
    figures |= {policy.name: comparison.figures(policy, best) for policy in answered}
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
