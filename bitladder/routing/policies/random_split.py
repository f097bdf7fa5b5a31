"""Tiers by chance, random:<tier>=<share>,...: what every other policy of an experiment is held against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from bitladder.routing.policies.fixed import SHOWN
from bitladder.routing.policies.interface import Requester, Source
from bitladder.routing.policies.rule_list import Always, RuleList
from bitladder.settings.policy_section import random_shares


class RandomSplit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Draws by the request: the same request id gets the same tier at every intake."""

    name: str
    shares: Mapping[str, float]

    def select(self, requester: Requester) -> RuleList:
        tier, reason = pick(self.shares, draw(self.name, requester.request))
        return RuleList(name=self.name, version=1, features=SHOWN, rules=(Always(tier, reason),))


def draw(salt: str, what: bytes) -> float:
    """Return a number from 0 to below 1 that depends on nothing else; another salt draws independently."""
    digest = hashlib.blake2b(salt.encode() + b"\0" + what, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def pick(shares: Mapping[str, float], drawn: float) -> tuple[str, str]:
    """Return whose share a number falls into, and why; a share that grows keeps what it had, if it is the first."""
    total, last = 0.0, ""
    for name, share in shares.items():
        if not share:
            continue
        total, last = total + share, name
        if drawn < total:
            break
    return last, f"draw {drawn:.4f} is within the share of {last}, {shares[last]:g}"


def random_tiers(source: Source) -> RandomSplit:
    """Return the policy of the shares that the name has behind its colon."""
    return RandomSplit(name=source.policy, shares=random_shares(source.policy))
