"""GET /v1/models: what may be asked for, as OpenAI's clients expect it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import unquote

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.queue.json_views.kinds import ModelName, TierName
from bitladder.settings.release import Published
from bitladder.settings.sections import Settings
from dispatcher.http.responses import Response, json_response
from dispatcher.state import IntakeState, intake_state

_DOMINATED = "By tier: the higher one that writes as fast and as cheaply, at every load that both have known."


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model or one of its tiers, with what was measured of its published checkpoints."""

    id: ModelName
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    root: str  # the model's own name
    parent: str | None = None  # of a tier: its model
    max_model_len: Annotated[int, msgspec.Meta(ge=1)]
    tiers: tuple[TierName, ...]
    published: Annotated[dict[str, Published], msgspec.Meta(description="By tier: what was measured.")]
    dominated: Annotated[dict[str, str], msgspec.Meta(description=_DOMINATED)]


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The models of this intake."""

    object: Literal["list"] = "list"
    data: list[Model]


async def list_models(request: HttpRequest) -> Response:
    """List the models, then their other names and their tiers: clients let their users choose among these."""
    state = intake_state(request)
    return json_response(ModelList(data=[_describe(name, state) for name in listed_names(state.settings)]))


async def get_model(request: HttpRequest) -> Response:
    """Show one model."""
    return json_response(_describe(unquote(request.path_params["model"]), intake_state(request)))


def listed_names(settings: Settings) -> list[str]:
    """Return the names that /v1/models shows, models first: some clients take the first that there is."""
    names = dict.fromkeys(settings.models)
    for name, choice in settings.choices.items():
        is_other_spelling = choice.tier and name != f"{choice.model}:{choice.tier}"
        names |= {} if is_other_spelling else {name: None}
    return list(names)


def _describe(name: str, state: IntakeState) -> Model:
    choice = state.settings.choice(name)
    model, beaten = state.settings.model(choice.model), state.budgets.dominated.get(choice.model, {})
    tiers = [tier for tier in model.tiers if choice.tier in (None, tier.name)]
    return Model(
        id=name,
        owned_by=model.owned_by,
        root=choice.model,
        parent=choice.model if choice.tier else None,
        max_model_len=model.max_model_len,
        tiers=tuple(tier.name for tier in tiers),
        published={tier.name: tier.published for tier in tiers if tier.published},
        dominated={tier.name: beaten[tier.name] for tier in tiers if tier.name in beaten},
    )
