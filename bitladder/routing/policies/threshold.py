"""Rules over any features, in order: the first one whose conditions all hold chooses the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitladder.decision import Score
from bitladder.policy_forms import ThresholdForm, digest_of, read_condition
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import Source
from bitladder.routing.policies.rule_list import Always, Condition, RuleList


@dataclass(frozen=True, slots=True)
class _TierRule:
    """Conditions that choose a tier together."""

    conditions: tuple[Condition, ...]
    tier: str

    def holds(self, score: Score, constraints: Constraints) -> bool:
        return all(condition.holds(score, constraints) for condition in self.conditions)

    def text(self, score: Score, constraints: Constraints) -> str:
        return " and ".join(condition.text(score, constraints) for condition in self.conditions)

    def rank(self, ladder: Sequence[str]) -> int:
        return ladder.index(self.tier)


def threshold(source: Source) -> RuleList:
    """Return the policy of the rules of a table or its file."""
    form = source.named[source.policy].content
    assert isinstance(form, ThresholdForm)  # noqa: S101  (the settings have checked it)
    rules = [_TierRule(tuple(Condition(read_condition(text)) for text in rule.when), rule.floor) for rule in form.rules]
    names = [name for rule in rules for condition in rule.conditions for name in condition.features]
    return RuleList(
        name=f"{source.policy}:{digest_of(form)}",
        version=form.version,
        features=tuple(dict.fromkeys(names)),
        rules=(*rules, Always(form.otherwise, "no rule holds")),
    )
