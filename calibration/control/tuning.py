"""Fit what each tier loses, and find the highest limit that a promise allows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitladder.policy_forms import LearnedForm
from calibration.control.losses import Labels
from calibration.control.pareto import pareto_front
from calibration.control.policy_figures import held_out
from calibration.control.predictor_choice import Advance, Sample, choose, correlation
from calibration.control.predictors.registry import EXPORTABLE, PREDICTORS
from calibration.control.promise import (
    average_labels_needed,
    high_probability,
    labels_needed,
    mean_labels_needed,
    on_average,
    share_in_words,
)
from calibration.control.scores import chosen_tiers, fixed_limits
from calibration.errors import InputError

Numbers = NDArray[np.float64]
Rows = NDArray[np.intp]
MIN_LABELS = 50
AUTO = "auto"
# Shares of the labels: for the fit, for the promise, and the rest for figures that nothing was chosen by.
_FIT, _PROMISE = 0.4, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be promised: a share of requests that lose more than a threshold, or a mean of clipped losses."""

    costs: dict[str, float]  # of every tier that counts, in any order; the dearest one is the top
    measure: str
    threshold: float  # what a request may lose; with the risk `mean`: where losses are clipped
    alpha: float
    delta: float
    promise: str  # high-probability or mean
    seed: int
    risk: str = "share"  # or mean
    predictor: str = AUTO

    @property
    def ladder(self) -> tuple[str, ...]:
        """The tiers by cost, the cheapest first."""
        return tuple(sorted(self.costs, key=lambda tier: self.costs[tier]))

    @property
    def level(self) -> float:
        """What the mean of `bounded` losses must not be over."""
        return self.alpha / self.threshold if self.risk == "mean" else self.alpha

    def bounded(self, losses: Numbers) -> Numbers:
        """Return losses between 0 and 1, whose mean is the risk."""
        if self.risk == "mean":
            return np.minimum(losses, self.threshold) / self.threshold
        return (losses > self.threshold).astype(float)

    @property
    def words(self) -> str:
        """What is promised, but for the confidence."""
        if self.risk == "mean":
            return f"the mean of {self.measure} added, each clipped at {self.threshold:g}, is at most {self.alpha:.3g}"
        return share_in_words(self.alpha, self.threshold, self.measure)


def tune(
    labels: Labels, question: Question, advance: Advance = lambda name: None
) -> tuple[LearnedForm | None, dict[str, Any]]:  # Any: JSON
    """Return the policy that keeps the promise, or None where the labels cannot promise it, and all figures.

    Raises:
        InputError: there are too few labels to say anything, or no predictor can be used.

    """
    fitted_on, promised_on, tested_on = parts = divided(labels.groups, question.seed)
    if (texts := sum(map(len, parts))) < MIN_LABELS:
        raise InputError(f"{texts} texts have {question.measure} of every tier, expected at least {MIN_LABELS}")
    added, top = added_losses(labels, question.ladder[-1]), question.ladder[-1]
    front = pareto_front({tier: losses[fitted_on] for tier, losses in added.items()}, question.costs, top)
    kept = {tier: added[tier] for tier in question.ladder[:-1] if tier not in front.left_out}
    if not kept:
        raise InputError("no tier is cheaper than the top: there is nothing to tune")
    tiers, costs = list(kept), {tier: question.costs[tier] for tier in (*kept, top)}
    sample = Sample(labels, tiers[0], added[tiers[0]], question.seed)
    names = EXPORTABLE if question.predictor == AUTO else (question.predictor,)
    choice = choose({name: PREDICTORS[name] for name in names}, sample, kept, fitted_on, advance)
    fit = PREDICTORS[choice.name].fit(labels, kept, tiers, fitted_on, question.seed)
    bounds = fit.losses(labels, np.arange(len(labels)))
    of_requests = added_losses(labels, top, labels.of_requests)
    losses = np.array([*(of_requests[tier] for tier in kept), np.zeros(len(labels))]).T
    steps, place, limit = promised_limit(bounds, losses, (fitted_on, promised_on), question)
    figures = {
        "labels": dict(zip(("fit", "promise", "test"), map(len, parts), strict=True))
        | {"repeated": len(labels) - texts},
        "ladder": list(costs),
        "costs": costs,
        "left_out": front.left_out,
        "notes": front.notes,
        "predictor": dataclasses.asdict(choice),
        "limit": limit,
        "next": _next_step(steps, -1 if place is None else place, question),
        **_figures_of(sample, of_requests, question, (bounds, list(costs), limit), (promised_on, tested_on)),
    }
    form = fit.export()
    if limit is None or form is None:
        return None, figures
    return msgspec.structs.replace(form, measure=question.words[:200], limit=limit), figures


def _figures_of(
    sample: Sample,
    added: Mapping[str, Numbers],
    question: Question,
    policy: tuple[Numbers, Sequence[str], float | None],
    rows: tuple[Rows, Rows],
) -> dict[str, Any]:  # Any: JSON
    """Return what the score and the policy do on labels that were not fitted on.

    The score was not chosen by those of the promise either; the policy was, by its limit. Its tiers are shown beside
    those that were left out: what serves without it uses them.
    """
    bounds, tiers, limit = policy
    others, tested_on = np.concatenate(rows), rows[1]
    texts = sample.units("random", others)
    places = np.array([question.ladder.index(tier) for tier in tiers])
    chosen = places[chosen_tiers(bounds[tested_on], -1.0 if limit is None else limit)]
    costs = {tier: question.costs[tier] for tier in question.ladder}
    losses = np.array([*(added[tier][tested_on] for tier in question.ladder[:-1]), np.zeros(len(tested_on))]).T
    return {
        "spearman": correlation([bounds[others, 0]], sample.losses[others], texts, question.seed),
        "held_out": held_out(costs, losses, question.threshold, chosen, _entropies(sample.labels, tested_on)),
    }


def divided(groups: Sequence[str], seed: int) -> tuple[Rows, Rows, Rows]:
    """Return the rows for the fit, for the promise and for the test, drawn by chance: one of each text.

    A label that is there twice proves no more than once.
    """
    _, first = np.unique(np.array(groups), return_index=True)
    order = first[np.argsort(np.random.default_rng(seed).permutation(len(first)))]
    fit, promise, test = np.split(order, [math.ceil(share * len(first)) for share in (_FIT, _FIT + _PROMISE)])
    return fit, promise, test


def added_losses(labels: Labels, top: str, losses: Mapping[str, Numbers] | None = None) -> dict[str, Numbers]:
    """Return what each tier loses beyond the top of the ladder; `losses`: others of the labels than their means."""
    losses = losses or labels.losses
    of_top = losses.get(top, np.zeros(len(labels)))
    return {tier: np.maximum(values - of_top, 0.0) for tier, values in losses.items() if tier != top}


def promised_limit(
    bounds: Numbers, losses: Numbers, rows: tuple[Rows, Rows], question: Question
) -> tuple[list[Numbers], int | None, float | None]:
    """Return the losses of each candidate limit, the last candidate that is promised, and its limit.

    `rows` are those of the fit, by whose bounds the candidates are fixed, and those of the promise, which test them.
    """
    fitted_on, promised_on = rows
    limits = fixed_limits(bounds[fitted_on], bounds.shape[1])
    risks, places = question.bounded(losses[promised_on]), np.arange(len(promised_on))
    steps = [risks[places, chosen_tiers(bounds[promised_on], float(limit))] for limit in limits]
    if question.promise == "mean":
        place = on_average(steps, question.level)
    else:
        place = high_probability(steps, question.level, question.delta)
    return steps, place, None if place is None else float(limits[place])


def _entropies(labels: Labels, rows: Rows) -> Numbers | None:
    return labels.features[rows, labels.names.index("entropy")] if "entropy" in labels.names else None


def _next_step(steps: Sequence[Numbers], place: int, question: Question) -> dict[str, Any] | None:  # Any: JSON
    """Return what the first candidate that is not promised loses, and how many more labels would prove it."""
    if place + 1 == len(steps):
        return None
    losses = steps[place + 1]
    if question.promise == "mean":
        losses = np.max(steps[: place + 2], axis=0)
        needed = average_labels_needed(losses, question.level)
    elif question.risk == "mean":
        needed = mean_labels_needed(losses, question.level, question.delta, beyond=len(losses))
    else:
        needed = labels_needed(float(losses.mean()), question.level, question.delta, beyond=len(losses))
    more = None if needed is None else math.ceil((needed - len(losses)) / _PROMISE)
    scale = question.threshold if question.risk == "mean" else 1.0
    return {"risk": scale * float(losses.mean()), "more_labels": more}
