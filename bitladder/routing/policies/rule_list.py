"""A policy that is a list of rules: the first one that holds chooses the floor."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from bitladder.decision import Decision, Score
from bitladder.policy_forms import ASKED_NAMES, Comparison
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import LookedAt, decision

# The deadline of a request that has none.
_NEVER = math.inf
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# How values are shown that are not shown under their own name and in full.
_SHOWN = {"entropy": "entropy %.2f", "max_latency_ms": "max latency %.10g ms", "deadline_ms": "deadline %.10g ms"}


class Rule(Protocol):
    """One rule of a list."""

    def holds(self, score: Score, constraints: Constraints) -> bool:
        """Return whether it chooses the floor."""

    def text(self, score: Score, constraints: Constraints) -> str:
        """Return what it compares."""

    def rank(self, ladder: Sequence[str]) -> int:
        """Return the tier that it chooses, as a place on the ladder."""


class Condition:
    """Compares a feature, or what the client asked for."""

    __slots__ = ("_compare", "_is_asked", "_limit", "_name", "_text")

    def __init__(self, comparison: Comparison) -> None:
        self._name, sign, self._limit = comparison
        self._compare, self._is_asked = _COMPARE[sign], self._name in ASKED_NAMES
        unit = " ms" if self._name.endswith("_ms") else ""
        self._text = f"{_SHOWN.get(self._name, f'{self._name} %.10g')} {sign} {self._limit:.10g}{unit}"

    def holds(self, score: Score, constraints: Constraints) -> bool:
        if self._is_asked:  # the shipped policy begins with these: every request comes by here
            value = getattr(constraints.envelope, self._name)
            return self._compare(_NEVER if value is None else value, self._limit)
        return self._compare(score[self._name], self._limit)

    def text(self, score: Score, constraints: Constraints) -> str:
        return self._text % self._value(score, constraints)

    @property
    def features(self) -> tuple[str, ...]:
        return () if self._is_asked else (self._name,)

    def _value(self, score: Score, constraints: Constraints) -> float:
        value: float | None = getattr(constraints.envelope if self._is_asked else score, self._name)
        return _NEVER if value is None else value


@dataclass(frozen=True, slots=True)
class Always:
    """Holds whatever the score is."""

    tier: str | None  # None: the top one
    reason: str

    def holds(self, score: Score, constraints: Constraints) -> bool:
        del score, constraints
        return True

    def text(self, score: Score, constraints: Constraints) -> str:
        del score, constraints
        return self.reason

    def rank(self, ladder: Sequence[str]) -> int:
        return len(ladder) - 1 if self.tier is None else ladder.index(self.tier)


class RuleList(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A policy of rules, of which the last one always holds."""

    name: str
    version: int
    features: tuple[str, ...]
    rules: tuple[Rule, ...]

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        for rule in self.rules:
            if rule.holds(score, constraints):
                break
        return decision(self, rule.rank(constraints.ladder), rule.text(score, constraints), score, constraints)

    def explain(self, score: Score, constraints: Constraints) -> list[LookedAt]:
        looked_at = []
        for rule in self.rules:
            holds, text = rule.holds(score, constraints), rule.text(score, constraints)
            floor = constraints.ladder[rule.rank(constraints.ladder)]
            looked_at.append(LookedAt(rule=text, holds=holds, floor=floor))
            if holds:
                break
        return looked_at
