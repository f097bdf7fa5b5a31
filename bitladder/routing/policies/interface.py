"""What every policy is: a pure function from a score and constraints to a decision, and to what it looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from bitladder.decision import Decision, Score
from bitladder.routing.constraints import Constraints
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings


class LookedAt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rule that a policy has looked at."""

    rule: str  # with the values that it compared: "entropy 4.51 > 4.5"
    holds: bool
    floor: str  # the tier that it chooses where it holds


class Policy(Protocol):
    """Chooses the lowest tier that a request may be served at."""

    @property
    def name(self) -> str:
        """As decisions have it: the setting's name, and of a table the beginning of its content's digest too."""

    @property
    def version(self) -> int:
        """Counted up with every change after which the same score may be decided otherwise."""

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it reads; no others are computed."""

    def decide(self, score: Score, constraints: Constraints) -> Decision:
        """Choose a floor within the constraints, and say why. Pure: the same arguments give the same decision."""

    def explain(self, score: Score, constraints: Constraints) -> Sequence[LookedAt]:
        """Return the rules that `decide` looks at, in its order: the last one holds, and chooses."""


class Requester(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asks: what a split draws by."""

    key: str  # name of the API key, or where there is none the tenant
    request: bytes  # the request's id, or where it has none its body


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a policy is made of."""

    policy: str  # its name, as a setting has it
    settings: PolicySettings
    named: Mapping[str, NamedPolicySettings]
    make: Callable[[str], Policy]  # a policy that a split names


def decision(policy: Policy, rank: int, reason: str, score: Score, constraints: Constraints) -> Decision:
    """Return the decision for the tier at `rank`, moved into what the constraints allow."""
    bounded = constraints.nearest(rank)
    if bounded != rank:
        reason += f", {'raised to a minimum' if bounded > rank else 'held at a maximum'}"
    return Decision(
        policy=policy.name, version=policy.version, floor=constraints.ladder[bounded], reason=reason, score=score
    )
