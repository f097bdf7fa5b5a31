"""What a canary tries, how it is judged, and which live settings give it its share and take it back. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

# The table of policies that a share of the keys is divided by.
SPLIT = "canary"
_TABLE = (f"policies.{SPLIT}.kind", f"policies.{SPLIT}.shares")


class Measure(StrEnum):
    """The loss of one answer, from 0 to 1."""

    FLIPS = "flips"  # share of the tokens of the reference's answer where another one is likeliest
    KL = "kl"  # mean divergence from the reference along its answer, up to a limit, as a share of the limit
    TASK = "task"  # 1 where the answer is wrong by the prompt's own check


class Spec(msgspec.Struct, frozen=True):
    """One canary. The defaults are the usual profile: a tenth of the keys for a day."""

    model: str
    candidate: str = ""  # another model of the stack; or
    policy: str = ""  # another policy for the model
    share: float = 0.1
    hours: float = 24.0
    measure: Measure = Measure.FLIPS
    margin: float = 0.02  # so much worse is still good enough
    alpha: float = 0.05
    clip: float = 1.0  # nats: with `kl`
    reference: str = ""  # the tier of the model that answers are held against
    tier: str = ""  # the only one that is compared; '': the one that the policy chooses for the prompt
    answer_tokens: int = 48
    max_wait_s: float = 30.0  # expected of the candidate's normal lane
    max_failed: float = 0.05  # share of the candidate's jobs
    seed: int = 0
    current_policy: str = ""  # in force before, with `policy`

    @property
    def served_by(self) -> str:
        """The model whose workers serve the share."""
        return self.candidate or self.model

    @property
    def what(self) -> str:
        return f"model {self.candidate}" if self.candidate else f"policy {self.policy}"


class Change(NamedTuple):
    """Live settings that are set, and those that are unset."""

    values: dict[str, Any]
    unset: tuple[str, ...] = ()


def give(spec: Spec) -> Change:
    """Return what gives the candidate its share."""
    if spec.candidate:
        return Change({_canary(spec): {"model": spec.candidate, "share": spec.share}})
    shares = {spec.policy: spec.share, spec.current_policy: round(1 - spec.share, 9)}
    return Change(dict(zip(_TABLE, ("split", shares), strict=True)) | {_policy(spec): SPLIT})


def take_back(spec: Spec, was: object, *, was_live: bool) -> Change:
    """Return what ends the share; `was`: the model's policy before, where one was set."""
    if spec.candidate:
        return Change({_canary(spec): {"model": spec.candidate, "share": 0.0}})
    return Change({_policy(spec): was}, _TABLE) if was_live else Change({}, (_policy(spec), *_TABLE))


def promote(spec: Spec) -> Change:
    """Return what gives the candidate everything."""
    if spec.candidate:
        return Change({_canary(spec): {"model": spec.candidate, "share": 1.0, "drawn_by": "request"}})
    return Change({_policy(spec): spec.policy}, _TABLE)


def key_of(spec: Spec) -> str:
    """Return the setting by which one sees whether the share is still as the canary has set it."""
    return _canary(spec) if spec.candidate else _policy(spec)


def is_given(spec: Spec, value: object) -> bool:
    """Return whether that setting is so."""
    if not spec.candidate:
        return value == SPLIT
    return isinstance(value, dict) and (value.get("model"), value.get("share")) == (spec.candidate, spec.share)


def share_of(spec: Spec, value: object) -> str:
    """Return who has a share by that setting; '' where nobody has."""
    if not spec.candidate:
        return spec.what if value == SPLIT else ""
    return f"model {value.get('model')}" if isinstance(value, dict) and value.get("share") else ""


def is_promoted(spec: Spec, value: object) -> bool:
    """Return whether the candidate has everything already."""
    if not spec.candidate:
        return value == spec.policy
    return isinstance(value, dict) and (value.get("model"), value.get("share")) == (spec.candidate, 1.0)


def _canary(spec: Spec) -> str:
    return f"models.{spec.model}.canary"


def _policy(spec: Spec) -> str:
    return f"models.{spec.model}.policy"
