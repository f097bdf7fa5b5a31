"""Which requests for a model its candidate answers: a share that stays with its keys. Pure.

The draw depends on key and salt alone, so every intake draws alike, and a share that grows keeps the keys it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from bitladder.queue_name import DEFAULT_TENANT
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies.random_split import draw
from bitladder.settings.access import KeyRules
from bitladder.settings.models_section import CanarySettings


class DrawEnd(StrEnum):
    """What became of a request that was drawn for the candidate."""

    CANDIDATE = "candidate"  # it goes there; all others go to the model that was asked for
    NO_WORKER = "no_worker"  # no live worker of the candidate's may serve it
    UNFIT = "unfit"  # it asks for tiers that the candidate lacks, or would cost more there than it may


class Drawn(msgspec.Struct, frozen=True, gc=False):
    """A request that was drawn."""

    model: str  # that was asked for
    end: DrawEnd


def is_drawn(canary: CanarySettings, envelope: Envelope, *, key: str, tenant: str, request: bytes) -> bool:
    """Return whether a request is the candidate's; `key`: the name of its API key, or ''.

    By key, whoever has neither key nor tenant is never drawn: all of them together would be one key.
    """
    if not canary.share or envelope.canary is not None:
        return bool(canary.share and envelope.canary)
    salt = f"canary {canary.salt or canary.model}"
    if canary.drawn_by == "request":
        return draw(salt, request) < canary.share
    is_named = bool(key) or tenant != DEFAULT_TENANT
    return is_named and draw(salt, (key or tenant).encode()) < canary.share


def names_lacking_tier(tier: str | None, rules: KeyRules, ladder: Sequence[str], candidate: Sequence[str]) -> bool:
    """Return whether the model's name, or the defaults of an API key, name a tier that the candidate lacks."""
    defaults = (rules.defaults.floor, rules.defaults.ceiling)
    return any(name in ladder and name not in candidate for name in (tier, *defaults) if name)
