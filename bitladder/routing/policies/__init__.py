"""Which tier a request needs at least: a file per policy. interface.py says what a policy is; POLICIES names all."""

from __future__ import annotations

from collections.abc import Callable

from bitladder.routing.policies.article import article
from bitladder.routing.policies.fixed import fixed
from bitladder.routing.policies.interface import Policy
from bitladder.settings.policy_section import PolicySettings

# What stands before the colon of policy.name.
POLICIES: dict[str, Callable[[PolicySettings], Policy]] = {"article": article, "fixed": fixed}


def policy_of(settings: PolicySettings) -> Policy:
    """Return the policy in force. The settings have checked its name (bitladder/settings/sections.py)."""
    return POLICIES[settings.name.partition(":")[0]](settings)
