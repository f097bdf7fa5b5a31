"""The same tier for every request: fixed:<tier>."""

from __future__ import annotations

from bitladder.routing.policies.interface import Source
from bitladder.routing.policies.rule_list import Always, RuleList

# What it looks at: only the entropy, because every answer shows it (X-Entropy).
SHOWN = ("entropy",)


def fixed(source: Source) -> RuleList:
    """Return the policy of the tier that the name has behind its colon."""
    rule = Always(source.policy.partition(":")[2], f"policy {source.policy}")
    return RuleList(name=source.policy, version=1, features=SHOWN, rules=(rule,))
