"""The lowest tier whose predicted loss is within a limit. bitladder/policy_forms.py has what predicts it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from bitladder.decision import Score
from bitladder.policy_forms import Input, LearnedForm, Linear, Node, Trees, digest_of
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import Source
from bitladder.routing.policies.rule_list import Always, RuleList

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


@dataclass(frozen=True, slots=True)
class _Within:
    """Holds where the bound of a tier's loss is within the limit."""

    tier: str
    inputs: tuple[Input, ...]
    predictor: Linear | Trees
    limit: float

    def holds(self, score: Score, constraints: Constraints) -> bool:
        del constraints
        return self._bound(score) <= self.limit

    def text(self, score: Score, constraints: Constraints) -> str:
        del constraints
        value = self._bound(score)
        return f"loss at {self.tier} {value:.4g} {'<=' if value <= self.limit else '>'} {self.limit:g}"

    def rank(self, ladder: Sequence[str]) -> int:
        return ladder.index(self.tier)

    def _bound(self, score: Score) -> float:
        return bound(self.predictor, inputs_of(self.inputs, score))


def learned(source: Source) -> RuleList:
    """Return the policy of a file's predictors; the settings have checked that they go up the ladder."""
    form = source.named[source.policy].content
    assert isinstance(form, LearnedForm)  # noqa: S101  (the settings have checked it)
    rules = (_Within(tier, form.inputs, predictor, form.limit) for tier, predictor in form.tiers.items())
    return RuleList(
        name=f"{source.policy}:{digest_of(form)}",
        version=form.version,
        features=tuple(dict.fromkeys(item.name for item in form.inputs)),
        rules=(*rules, Always(None, "no tier below is within the limit")),
    )
