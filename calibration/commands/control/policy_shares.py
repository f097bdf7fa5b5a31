"""Which share of labelled prompts a policy lets go to each tier, by the function that serves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bitladder.decision import Score
from bitladder.policy_forms import FEATURE_NAMES
from bitladder.routing.constraints import Constraints
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies import policy_of
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from calibration.audit.features import NAMES, score
from calibration.commands.control.policy_file import read_policy
from calibration.errors import InputError
from calibration.texts.jsonl import read_lines

_NAME = "planned"


def policy_shares(file: Path, labels: Path, ladder: Sequence[str]) -> dict[str, float]:
    """Return each tier's share of the labels' prompts.

    Raises:
        InputError: a file cannot be read, the ladder lacks a tier of the policy, or a label a feature that it reads.

    """
    form = read_policy(file)
    if unknown := set(form.named_tiers) - set(ladder):
        raise InputError(f"policy {str(file)!r} names {min(unknown)!r}, which is not in the ladder {', '.join(ladder)}")
    kind = form.__struct_config__.tag
    named = NamedPolicySettings(kind=kind, file=str(file), form=form)
    policy = policy_of(PolicySettings(name=_NAME), {_NAME: named})
    constraints = Constraints(ladder=tuple(ladder), lowest=0, highest=len(ladder) - 1, envelope=Envelope())

    def floor(line: str, where: str) -> str:
        features = _features(line, where)
        if missing := [name for name in policy.features if name not in features]:
            raise InputError(f"{where}: lacks {', '.join(missing)}, which the policy reads")
        return policy.decide(Score(**{name: features[name] for name in policy.features}), constraints).floor

    floors = Counter(read_lines(labels, "label", floor))
    return {tier: floors[tier] / floors.total() for tier in ladder}


def _features(line: str, where: str) -> dict[str, float]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if isinstance(fields, dict) and isinstance(features := fields.get("features"), dict):
        numbers = (int, float)
        return {name: value for name, value in features.items() if name in FEATURE_NAMES and isinstance(value, numbers)}
    if isinstance(fields, dict) and isinstance(prompt := fields.get("prompt"), str):
        computed = score(prompt)
        return {name: computed[name] for name in NAMES}
    raise InputError(f'{where}: expected "features", an object of numbers, or "prompt", a text')
