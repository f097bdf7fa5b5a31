"""Which rule of the policy chose how often, and what other thresholds would choose. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import constraints_of
from bitladder.routing.policies import policy_of
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from calibration.audit.load_prompts import AuditedPrompt

Shares = dict[str, float]  # by tier; the sum is 1

_STEPS_PER_BIT = 10
# A reason names the value that was compared ("entropy 4.62 > 4.5"); the rule is the same for every value.
_COMPARED_VALUE = re.compile(r" -?[\d.]+(e[+-]\d+)?( ms)?(?= [<>])")


def decide_all(
    prompts: Sequence[AuditedPrompt],
    scores: Sequence[Score],
    ladder: tuple[str, ...],
    settings: PolicySettings,
    tables: Mapping[str, NamedPolicySettings],
) -> list[Decision]:
    """Return the decision on every prompt, as the intake would make it."""
    policy = policy_of(settings, tables)
    return [
        policy.decide(_as_it_came(score, prompt), constraints_of(prompt.envelope, ladder))
        for prompt, score in zip(prompts, scores, strict=True)
    ]


def _as_it_came(score: Score, prompt: AuditedPrompt) -> Score:
    """Return the score with the one feature that is none of the text; a text without a route counts as a completion."""
    return msgspec.structs.replace(score, chat=float(prompt.is_chat))


def shares_of(floors: Sequence[str], ladder: Sequence[str]) -> Shares:
    """Return the share of each tier among floors, of which there is at least one."""
    return {tier: floors.count(tier) / len(floors) for tier in ladder}


def shares_by_rule(decisions: Sequence[Decision], ladder: Sequence[str]) -> dict[str, Shares]:
    """Return how many of all prompts each rule sent to each tier, the most used rule first."""
    rule_of = [_COMPARED_VALUE.sub("", decision.reason) for decision in decisions]
    chosen = Counter(zip(rule_of, (decision.floor for decision in decisions), strict=True))
    return {
        rule: {tier: chosen[rule, tier] / len(decisions) for tier in ladder}
        for rule, _ in Counter(rule_of).most_common()
    }


def shares_by_threshold(
    prompts: Sequence[AuditedPrompt], scores: Sequence[Score], ladder: tuple[str, ...], settings: PolicySettings
) -> dict[str, Shares]:
    """Return the floors under every other threshold of the entropy, in tenths of a bit per byte.

    There are none for a policy without this threshold.
    """
    if settings.name != "article":
        return {}
    entropies = [score["entropy"] for score in scores]
    first, last = np.floor(min(entropies) * _STEPS_PER_BIT), np.ceil(max(entropies) * _STEPS_PER_BIT)
    steps = np.arange(first, last + 1) / _STEPS_PER_BIT
    return {f"{bits:g}": _shares_at(float(bits), prompts, scores, ladder, settings) for bits in steps}


def _shares_at(
    bits: float,
    prompts: Sequence[AuditedPrompt],
    scores: Sequence[Score],
    ladder: tuple[str, ...],
    settings: PolicySettings,
) -> Shares:
    decisions = decide_all(prompts, scores, ladder, settings.model_copy(update={"entropy_bits": bits}), {})
    return shares_of([decision.floor for decision in decisions], ladder)
