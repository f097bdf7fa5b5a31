"""The article's rule: urgent requests, and those that can wait, go to the top tier; high entropy to the middle one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from bitladder.decision import Score
from bitladder.policy_forms import Comparison
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import Source
from bitladder.routing.policies.rule_list import Condition, RuleList


class _Place(Enum):
    """A place that every ladder has."""

    LOWEST = 0
    MIDDLE = 1
    TOP = 2


class _PlaceRule(Condition):
    """A condition that chooses a place."""

    __slots__ = ("_place",)

    def __init__(self, comparison: Comparison, place: _Place) -> None:
        super().__init__(comparison)
        self._place = place.value

    def rank(self, ladder: Sequence[str]) -> int:
        return (0, len(ladder) // 2, len(ladder) - 1)[self._place]


class _LastRule(_PlaceRule):
    """The rule before it, turned round: where that does not hold, this one does."""

    __slots__ = ()

    def holds(self, score: Score, constraints: Constraints) -> bool:
        del score, constraints
        return True


def article(source: Source) -> RuleList:
    """Return the rule bitladder began with, with the configured thresholds."""
    settings = source.settings
    rules = (
        _PlaceRule(Comparison("priority", ">=", settings.top_priority), _Place.TOP),
        _PlaceRule(Comparison("max_latency_ms", ">", settings.top_latency_ms), _Place.TOP),
        _PlaceRule(Comparison("entropy", ">", settings.entropy_bits), _Place.MIDDLE),
        _LastRule(Comparison("entropy", "<=", settings.entropy_bits), _Place.LOWEST),
    )
    return RuleList(name="article", version=1, features=("entropy",), rules=rules)
