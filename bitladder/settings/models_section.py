"""Settings of the models and of their precision tiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from bitladder.errors import ConfigError
from bitladder.settings.base import ModelName, Name, Section
from bitladder.settings.policy_section import PolicyName
from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.release import Published


class TierSettings(Section):
    """One precision of a model."""

    name: Name = Field(description="name of the tier")
    hardware: str = Field(
        "cpu", description="what it runs on; `calibrate quantize` refuses recipes that it cannot serve"
    )
    price_per_hour: float = Field(0, ge=0, allow_inf_nan=False, description="price of one worker, in your currency")
    checkpoint: str = Field("", description="folder of the weights; {cache} stands for [vllm].cache_dir")
    url: str = Field("", description="engine = remote: base URL of an OpenAI-compatible server")
    slots: int = Field(16, ge=1, le=4096, description="maximum jobs in flight on one worker")
    high: int = Field(64, ge=1, description="high mark: a deeper queue overflows to higher tiers")
    low: int = Field(16, ge=0, description="low mark: until it is no deeper than this")
    high_age_s: float | None = Field(
        None, gt=0, description="high mark of the age of the oldest job; unset: age makes no queue overflow"
    )
    low_age_s: float | None = Field(None, ge=0, description="low mark of the age; unset: half the high one")
    high_wait_s: float | None = Field(
        None, gt=0, description="high mark of the expected wait: depth by the measured rate; unset: it is not looked at"
    )
    low_wait_s: float | None = Field(None, ge=0, description="low mark of the expected wait; unset: half the high one")
    eager: bool = Field(
        False, description="take lower tiers' jobs at once, whatever their marks, while nothing waits for this tier"
    )
    reserve: int = Field(0, ge=0, description="slots of a worker that other tiers' jobs leave free")
    vllm_args: tuple[str, ...] = Field((), description="arguments of this tier's vLLM server")
    published: Published | None = Field(
        None, description="version, digest and figures of the checkpoint; from the published release, not to be written"
    )

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high ({self.high}), got {self.low}")
        for kind, high_s, low_s in (
            ("age", self.high_age_s, self.low_age_s),
            ("wait", self.high_wait_s, self.low_wait_s),
        ):
            if low_s is not None and (high_s is None or low_s >= high_s):
                raise ValueError(f"low_{kind}_s must be below high_{kind}_s ({high_s}), got {low_s}")
        if self.reserve >= self.slots:
            raise ValueError(f"reserve must be below slots ({self.slots}), got {self.reserve}")
        return self


class CanarySettings(Section):
    """A share of a model's requests that another model of [models] answers: its candidate."""

    model: ModelName = Field(description="the candidate: another model of [models]")
    share: float = Field(ge=0, le=1, allow_inf_nan=False, description="of what is drawn; 0: nothing")
    salt: str = Field("", max_length=64, description="another one draws other keys; empty: the candidate's name")
    drawn_by: Literal["key", "request"] = Field("key", description="what is drawn; a key keeps its model")


class ModelSettings(Section):
    """One logical model: a ladder of tiers, lowest quality first."""

    owned_by: str = Field("bitladder", description="owner shown by /v1/models")
    max_model_len: int = Field(2048, ge=1, description="context shown by /v1/models")
    tool_call_parser: str = Field(
        "",
        pattern="^[A-Za-z0-9_-]*$",
        description="vLLM's parser of the tool calls that this model writes; empty: requests with tools are refused",
    )
    max_overflow_cost_per_hour: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="attributed cost of overflow in an hour of the clock, after which it waits; unset: no limit",
    )
    aliases: tuple[ModelName, ...] = Field((), description="other names that requests may use for it")
    policy: PolicyName | None = Field(None, description="how its floors are chosen; unset: policy.name")
    canary: CanarySettings | None = Field(None, description="which share of its requests a candidate answers")
    redis: RedisSettings | None = Field(
        None, description="its queue is at a Redis of its own: a table like [redis]; unset: [redis]"
    )
    tiers: tuple[TierSettings, ...] = Field(min_length=1, description="lowest quality first")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise ValueError(f"tier names must differ, got {', '.join(names)}")
        return self

    @property
    def ladder(self) -> tuple[str, ...]:
        """The tier names, lowest first."""
        return tuple(tier.name for tier in self.tiers)

    def tier(self, name: str) -> TierSettings:
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise ConfigError(f"tier must be one of {', '.join(self.ladder)}, got {name!r}")


class ModelChoice(NamedTuple):
    """What a name in a request means."""

    model: str
    tier: str | None = None  # the only tier that may serve it; None: any
    canary_of: str = ""  # the model that was asked for, where this one is its candidate


def choices_of(models: Mapping[str, ModelSettings]) -> dict[str, ModelChoice]:
    """Return what each name means that requests may use: models, their aliases, and either with a tier behind it.

    Raises:
        ValueError: one name means two things.

    """
    choices: dict[str, ModelChoice] = {}
    for model, settings in models.items():
        for name in (model, *settings.aliases):
            tiers = {f"{name}{mark}{tier}": ModelChoice(model, tier) for tier in settings.ladder for mark in ":@"}
            for spelled, choice in {name: ModelChoice(model), **tiers}.items():
                if (other := choices.setdefault(spelled, choice)) is not choice:
                    raise ValueError(f"models: {spelled!r} means {_in_words(other)} and {_in_words(choice)}")
    return choices


def check_canary(name: str, models: Mapping[str, ModelSettings], redis: RedisSettings) -> None:
    """Check that a model's candidate can answer what is meant for the model.

    Raises:
        ValueError: why not.

    """
    model = models[name]
    if model.canary is None:
        return
    key, candidate = f"models.{name}.canary.model", models.get(model.canary.model)
    if candidate is None or candidate is model:
        known = ", ".join(other for other in models if other != name) or "there is none"
        raise ValueError(f"{key} must be another model ({known}), got {model.canary.model!r}")
    if candidate.canary:
        raise ValueError(f"{key}: {model.canary.model} has a candidate of its own, and a request goes on once at most")
    if (candidate.redis or redis) != (model.redis or redis):
        raise ValueError(f"{key}: the queues of {name} and {model.canary.model} must be at the same Redis")
    if candidate.max_model_len < model.max_model_len:
        raise ValueError(
            f"{key}: {model.canary.model} has max_model_len {candidate.max_model_len}, below the {model.max_model_len} "
            f"of {name}: it would refuse requests that {name} can answer"
        )
    if model.tool_call_parser and not candidate.tool_call_parser:
        raise ValueError(f"{key}: {model.canary.model} needs a tool_call_parser, because {name} has one")


def _in_words(choice: ModelChoice) -> str:
    return f"tier {choice.tier} of model {choice.model}" if choice.tier else f"model {choice.model}"
