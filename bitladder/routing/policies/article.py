"""The article's rule: urgent requests, and those that can wait, go to the top tier; high entropy to the middle one."""

from __future__ import annotations

import msgspec

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import decision
from bitladder.settings.policy_section import PolicySettings


class _Article(msgspec.Struct, frozen=True, gc=False):
    """The rule bitladder began with, and its thresholds."""

    entropy_bits: float
    top_priority: int
    top_latency_ms: int
    name = "article"
    version = 1
    features = ("entropy",)

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        return decision(self, *self._wanted(score["entropy"], constraints), score, constraints)

    def _wanted(self, entropy: float, constraints: Constraints) -> tuple[int, str]:
        envelope, size = constraints.envelope, len(constraints.ladder)
        if envelope.priority >= self.top_priority:
            return size - 1, f"priority {envelope.priority} >= {self.top_priority}"
        if envelope.max_latency_ms > self.top_latency_ms:
            return size - 1, f"max latency {envelope.max_latency_ms} ms > {self.top_latency_ms} ms"
        if entropy > self.entropy_bits:
            return size // 2, f"entropy {entropy:.2f} > {self.entropy_bits:g}"
        return 0, f"entropy {entropy:.2f} <= {self.entropy_bits:g}"


def article(settings: PolicySettings) -> _Article:
    """Return the rule with the configured thresholds."""
    return _Article(settings.entropy_bits, settings.top_priority, settings.top_latency_ms)
