"""GET /v1/models: what may be asked for, as OpenAI's clients expect it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import ModelNotFoundError
from bitladder.queue.json_views.kinds import ModelName, TierName
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.release import Published
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model, with what was measured of its published checkpoints."""

    id: ModelName
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    root: str
    parent: str | None = None
    max_model_len: Annotated[int, msgspec.Meta(ge=1)]
    tiers: tuple[TierName, ...]
    published: Annotated[dict[str, Published], msgspec.Meta(description="By tier: what was measured.")]


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The models of this intake."""

    object: Literal["list"] = "list"
    data: list[Model]


async def list_models(request: HttpRequest) -> Response:
    """List the models."""
    models = intake_state(request).settings.models
    return json_response(ModelList(data=[_describe(name, model) for name, model in models.items()]))


async def get_model(request: HttpRequest) -> Response:
    """Show one model."""
    name, models = request.path_params["model"], intake_state(request).settings.models
    if name not in models:
        raise ModelNotFoundError(name, ", ".join(models))
    return json_response(_describe(name, models[name]))


def _describe(name: str, model: ModelSettings) -> Model:
    return Model(
        id=name,
        owned_by=model.owned_by,
        root=name,
        max_model_len=model.max_model_len,
        tiers=model.ladder,
        published={tier.name: tier.published for tier in model.tiers if tier.published},
    )
