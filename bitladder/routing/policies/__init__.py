"""Which tier a request needs at least: a file per policy. interface.py says what a policy is; POLICIES names all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitladder.routing.policies.article import article
from bitladder.routing.policies.fixed import fixed
from bitladder.routing.policies.interface import Policy, Requester, Source
from bitladder.routing.policies.learned import learned
from bitladder.routing.policies.random_split import RandomSplit, random_tiers
from bitladder.routing.policies.split import KeySplit, split
from bitladder.routing.policies.threshold import threshold
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from bitladder.settings.sections import Settings

_Split = RandomSplit | KeySplit
# By the kind of a table [policies.NAME], or by what stands before the colon of a name.
POLICIES: dict[str, Callable[[Source], Policy]] = {
    "article": article,
    "fixed": fixed,
    "threshold": threshold,
    "learned": learned,
}
# These choose a policy for each request.
SPLITS: dict[str, Callable[[Source], _Split]] = {"random": random_tiers, "split": split}


def policy_of(settings: PolicySettings, named: Mapping[str, NamedPolicySettings] | None = None) -> Policy:
    """Return the policy that settings name, which is no split. They have checked it (settings/policy_section.py)."""
    source = _source(settings.name, settings, named or {})
    return POLICIES[_kind(source)](source)


class Policies:
    """All policies that requests may get by one configuration, each made once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, Policy | _Split] = {}

    def select(self, model: str, key: str, requester: Callable[[], Requester]) -> Policy:
        """Return the policy of a request: its API key's, else its model's, else the configuration's."""
        settings = self._settings
        caller = settings.auth.keys.get(key) if key else None
        name = (caller and caller.policy) or settings.models[model].policy or settings.policy.name
        made = self._made.get(name) or self._make(name)
        return made.select(requester()) if isinstance(made, (RandomSplit, KeySplit)) else made

    def _make(self, name: str) -> Policy | _Split:
        source = _source(name, self._settings.policy, self._settings.policies)
        kind = _kind(source)
        made = self._made[name] = (SPLITS.get(kind) or POLICIES[kind])(source)
        return made


def _source(name: str, settings: PolicySettings, named: Mapping[str, NamedPolicySettings]) -> Source:
    def make(other: str) -> Policy:
        return policy_of(settings.model_copy(update={"name": other}), named)

    return Source(policy=name, settings=settings, named=named, make=make)


def _kind(source: Source) -> str:
    table = source.named.get(source.policy)
    return table.kind if table else source.policy.partition(":")[0]
