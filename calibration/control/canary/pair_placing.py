"""Which tier answers a prompt on each side: the one that the policy chooses, by the functions that serve."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from pydantic import ValidationError

from bitladder.endpoints import Endpoint
from bitladder.routing.accept import Incoming, accept
from bitladder.settings.sections import Settings
from calibration.control.canary.canary_prompts import CanaryPrompt
from calibration.control.canary.comparing import ModelTier
from calibration.control.canary.spec import SPLIT, Measure, Spec
from calibration.errors import InputError

# Neither side is the candidate's by chance: each is named.
_NOT_DRAWN: Mapping[str, str] = {"x-canary": "false"}


def resolved(spec: Spec, settings: Settings) -> Spec:
    """Return the spec with what the settings say of it.

    Raises:
        InputError: they do not have what it names.

    """
    model = settings.models.get(spec.model)
    if model is None:
        raise InputError(f"--model must be one of {', '.join(settings.models)}, got {spec.model!r}")
    if bool(spec.candidate) == bool(spec.policy):
        raise InputError("name either --candidate, another model, or --policy, another policy")
    if spec.candidate and spec.candidate not in settings.models:
        raise InputError(f"--candidate must be one of {', '.join(settings.models)}, got {spec.candidate!r}")
    if spec.policy and (spec.tier or SPLIT in settings.policies):
        raise InputError(
            "--tier compares two models at one tier; two policies differ in which tier they choose"
            if spec.tier
            else f"the name of the table [policies.{SPLIT}] is needed for the share: rename yours, or unset it"
        )
    reference = _checked_tiers(spec, settings)
    current = model.policy or settings.policy.name if spec.policy else ""
    return msgspec.structs.replace(spec, reference=reference, current_policy=current)


def _checked_tiers(spec: Spec, settings: Settings) -> str:
    """Return the reference's tier."""
    model = settings.models[spec.model]
    reference = spec.reference or model.ladder[-1]
    for option, tier in (("--reference", reference), ("--tier", spec.tier)):
        if tier and tier not in model.ladder:
            raise InputError(f"{option} must be one of {', '.join(model.ladder)}, got {tier!r}")
    if spec.tier and spec.candidate and spec.tier not in settings.models[spec.candidate].ladder:
        raise InputError(f"--tier {spec.tier} is no tier of {spec.candidate}")
    return reference


class Placing:
    """Where each side answers a prompt."""

    def __init__(self, spec: Spec, settings: Settings) -> None:
        self._spec = spec
        self._sides = (
            (spec.model, _with_policy(settings, spec.model, spec.current_policy)),
            (spec.served_by, _with_policy(settings, spec.model, spec.policy)),
        )
        self._models = {name: settings.models[name].ladder for name in dict.fromkeys((spec.model, spec.served_by))}

    @property
    def all_places(self) -> list[ModelTier]:
        return [ModelTier(model, tier) for model, ladder in self._models.items() for tier in ladder]

    def places(self, prompt: CanaryPrompt) -> tuple[ModelTier, ModelTier]:
        now, candidate = (self._place(prompt, *side) for side in self._sides)
        return now, candidate

    def _place(self, prompt: CanaryPrompt, model: str, settings: Settings) -> ModelTier:
        if self._spec.tier:
            return ModelTier(model, self._spec.tier)
        is_chat = prompt.chat or (prompt.chat is None and self._spec.measure is not Measure.TASK)
        messages = {"messages": [{"role": "user", "content": prompt.text}]}
        body = {"model": model} | (messages if is_chat else {"prompt": prompt.text})
        incoming = Incoming(
            endpoint=Endpoint.CHAT if is_chat else Endpoint.COMPLETIONS,
            body=msgspec.json.encode(body),
            headers=_NOT_DRAWN,
            request_id=prompt.id,
        )
        return ModelTier(model, accept(incoming, settings).submission.request.decision.floor)


def _with_policy(settings: Settings, model: str, policy: str) -> Settings:
    if not policy:
        return settings
    values = settings.model_dump()
    values["models"][model]["policy"] = policy
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(f"--policy: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
