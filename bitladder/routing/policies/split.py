"""Shares of the keys, or of the requests, to other policies: an experiment, or a new policy for a few at first."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import Constraints
from bitladder.routing.policies.interface import LookedAt, Policy, Requester, Source
from bitladder.routing.policies.random_split import draw, pick


class _Arm(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The policy that a request was given. Its decisions name the split too: canary/article@1."""

    split: str
    reason: str
    policy: Policy

    @property
    def name(self) -> str:
        return f"{self.split}/{self.policy.name}"

    @property
    def version(self) -> int:
        return self.policy.version

    @property
    def features(self) -> tuple[str, ...]:
        return self.policy.features

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        return msgspec.structs.replace(self.policy.decide(score, constraints), policy=self.name)

    def explain(self, score: Score, constraints: Constraints) -> list[LookedAt]:
        looked_at = self.policy.explain(score, constraints)
        return [LookedAt(rule=self.reason, holds=True, floor=looked_at[-1].floor), *looked_at]


class KeySplit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Draws by the API key, which so keeps its policy, or by the request."""

    name: str
    arms: Mapping[str, Policy]
    shares: Mapping[str, float]
    by_key: bool

    def select(self, requester: Requester) -> _Arm:
        drawn = draw(self.name, requester.key.encode() if self.by_key else requester.request)
        arm, reason = pick(self.shares, drawn)
        return _Arm(split=self.name, reason=reason, policy=self.arms[arm])


def split(source: Source) -> KeySplit:
    """Return the policy of a table's shares."""
    table = source.named[source.policy]
    arms = {name: source.make(name) for name in table.shares}
    return KeySplit(name=source.policy, arms=arms, shares=table.shares, by_key=table.drawn_by == "key")
