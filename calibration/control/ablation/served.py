"""What routing decides on labelled prompts: by its own code, a policy as it would serve. Pure."""

from __future__ import annotations

import numpy as np

from bitladder.decision import Score
from bitladder.policy_forms import Form, LearnedForm
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies import policy_of
from bitladder.routing.policies.interface import Policy as ServedPolicy
from bitladder.routing.policies.learned import bound, inputs_of
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from calibration.control.ablation.cost_curves import Numbers, Places
from calibration.control.losses import Labels
from calibration.errors import InputError

_NAME = "policy"
ARTICLE: ServedPolicy = policy_of(PolicySettings(name="article"))


def policy_of_form(form: Form) -> ServedPolicy:
    kind = "learned" if isinstance(form, LearnedForm) else "threshold"
    return policy_of(PolicySettings(name=_NAME), {_NAME: NamedPolicySettings(kind=kind, file=_NAME, form=form)})


def check_form(form: Form, labels: Labels, ladder: tuple[str, ...]) -> None:
    """Raise InputError where the policy names a tier without a cost, or reads what the labels lack."""
    if other := [tier for tier in form.named_tiers if tier not in ladder]:
        raise InputError(f"--policy names the tier {other[0]!r}, which has no --cost: expected {', '.join(ladder)}")
    lacking = [name for name in policy_of_form(form).features if name not in labels.names]
    if lacking:
        raise InputError(f"--policy reads {lacking[0]!r}, which the labels lack: they have {', '.join(labels.names)}")


def chosen_by(policy: ServedPolicy, labels: Labels, ladder: tuple[str, ...]) -> Places:
    """Return the place of the tier that the policy chooses for each label, of a request that asks for nothing."""
    constraints = constraints_of(Envelope(), ladder)
    return np.array([ladder.index(policy.decide(score, constraints).floor) for score in _scores(labels)], np.int8)


def bounds_of(form: LearnedForm, labels: Labels, below: tuple[str, ...]) -> Numbers:
    """Return the bound of each tier below the top for each label; infinite for one that the form does not name."""
    bounds = np.full((len(labels), len(below)), np.inf)
    for row, score in enumerate(_scores(labels)):
        inputs = inputs_of(form.inputs, score)
        for tier, predictor in form.tiers.items():
            if tier in below:
                bounds[row, below.index(tier)] = bound(predictor, inputs)
    return bounds


def _scores(labels: Labels) -> list[Score]:
    return [Score(**dict(zip(labels.names, row, strict=True))) for row in labels.features.tolist()]
