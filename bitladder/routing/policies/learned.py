"""The lowest tier whose predicted loss is within a limit. bitladder/policy_forms.py has what predicts it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

from bitladder.decision import Decision, Score
from bitladder.policy_forms import Input, LearnedForm, Linear, Node, Trees, digest_of
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import LookedAt, Source, decision

_NONE_WITHIN = "no tier below is within the limit"
_Inputs = Sequence[float]


def bound(predictor: Linear | Trees, inputs: _Inputs) -> float:
    """Return the bound of a tier's loss: the prediction held between its limits, and what is promised of it."""
    predicted = _linear(predictor, inputs) if isinstance(predictor, Linear) else _trees(predictor, inputs)
    predicted = min(max(predicted, predictor.low), predictor.high)
    if not predictor.bounds:
        return predicted
    return predictor.bounds[bisect_left(predictor.bounds, predicted, key=lambda pair: pair[0])][1]


def _linear(form: Linear, inputs: _Inputs) -> float:
    total = form.intercept
    for weight, value in zip(form.weights, inputs, strict=True):
        total += weight * value
    for weight, value in zip(form.squares, inputs, strict=False):
        total += weight * value * value
    return total


def _trees(form: Trees, inputs: _Inputs) -> float:
    return form.base + sum(_leaf(tree, inputs) for tree in form.trees)


def _leaf(tree: Sequence[Node], inputs: _Inputs) -> float:
    node = tree[0]
    while node.input >= 0:
        node = tree[node.below if inputs[node.input] <= node.value else node.above]
    return node.value


def inputs_of(inputs: Sequence[Input], score: Score) -> list[float]:
    """Return the features as predictors take them."""
    return [
        ((math.log1p(score[item.name]) if item.log else score[item.name]) - item.mean) / item.scale for item in inputs
    ]


class _Learned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The policy of a form's predictors."""

    name: str
    version: int
    features: tuple[str, ...]
    form: LearnedForm

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        for tier, value in self._bounds(score):
            if value <= self.form.limit:
                return decision(self, constraints.ladder.index(tier), self._text(tier, value), score, constraints)
        return decision(self, len(constraints.ladder) - 1, _NONE_WITHIN, score, constraints)

    def explain(self, score: Score, constraints: Constraints) -> list[LookedAt]:
        looked_at = []
        for tier, value in self._bounds(score):
            is_within = value <= self.form.limit
            looked_at.append(LookedAt(rule=self._text(tier, value), holds=is_within, floor=tier))
            if is_within:
                return looked_at
        return [*looked_at, LookedAt(rule=_NONE_WITHIN, holds=True, floor=constraints.ladder[-1])]

    def _bounds(self, score: Score) -> Iterator[tuple[str, float]]:
        inputs = inputs_of(self.form.inputs, score)
        return ((tier, bound(predictor, inputs)) for tier, predictor in self.form.tiers.items())

    def _text(self, tier: str, value: float) -> str:
        return f"loss at {tier} {value:.4g} {'<=' if value <= self.form.limit else '>'} {self.form.limit:g}"


def learned(source: Source) -> _Learned:
    """Return the policy of a file's predictors; the settings have checked that they go up the ladder."""
    form = source.named[source.policy].content
    assert isinstance(form, LearnedForm)  # noqa: S101  (the settings have checked it)
    names = tuple(dict.fromkeys(item.name for item in form.inputs))
    return _Learned(name=f"{source.policy}:{digest_of(form)}", version=form.version, features=names, form=form)
