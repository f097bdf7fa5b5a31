"""All settings of one process: the shape of bitladder.toml. Each section is in the file of its owner."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import Field, model_validator

from bitladder.errors import ConfigError, ModelNotFoundError
from bitladder.settings.access import AuthSettings, KeySettings
from bitladder.settings.base import ModelName, Name, Section
from bitladder.settings.intake_section import (
    BatchSettings,
    CaptureSettings,
    FilesSettings,
    IntakeSettings,
    WebhookSettings,
)
from bitladder.settings.log_section import LogSettings, MetricsSettings, TracingSettings
from bitladder.settings.models_section import ModelChoice, ModelSettings, check_canary, choices_of
from bitladder.settings.policy_section import (
    LaneSettings,
    NamedPolicySettings,
    PolicySettings,
    check_names,
    check_policy,
)
from bitladder.settings.publish_section import PublishSettings
from bitladder.settings.queue_section import QueueSettings
from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.worker_section import CascadeSettings, EchoSettings, VllmSettings, WorkerSettings


class Settings(Section):
    """All settings of one process."""

    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    redis: RedisSettings = RedisSettings()
    intake: IntakeSettings = IntakeSettings()
    files: FilesSettings = FilesSettings()
    batch: BatchSettings = BatchSettings()
    webhooks: WebhookSettings = WebhookSettings()
    auth: AuthSettings = AuthSettings()
    queue: QueueSettings = QueueSettings()
    lanes: LaneSettings = LaneSettings()
    policy: PolicySettings = PolicySettings()
    cascade: CascadeSettings = CascadeSettings()
    policies: dict[Name, NamedPolicySettings] = Field({}, description="more of them: tables [policies.NAME]")
    capture: CaptureSettings = CaptureSettings()
    worker: WorkerSettings = WorkerSettings()
    vllm: VllmSettings = VllmSettings()
    echo: EchoSettings = EchoSettings()
    publish: PublishSettings = PublishSettings()
    models: dict[ModelName, ModelSettings] = Field(min_length=1, description="the models served, by name")
    _names: tuple[str, ...] = ()  # of all models, where these are those of one Redis

    @model_validator(mode="after")
    def _policies_exist(self) -> Self:
        check_names(self.policies)
        ladders = {name: model.ladder for name, model in self.models.items()}
        unnamed = {name: ladder for name, ladder in ladders.items() if not self.models[name].policy}
        uses: list[tuple[str, str | None, dict[str, tuple[str, ...]]]] = [("policy.name", self.policy.name, unnamed)]
        uses += [(f"models.{name}.policy", self.models[name].policy, {name: ladders[name]}) for name in ladders]
        uses += [(f"auth.keys.{name}.policy", key.policy, ladders) for name, key in self.auth.keys.items()]
        for key, policy, models in uses:
            if policy:
                try:
                    check_policy(policy, self.policies, models)
                except ValueError as error:
                    raise ValueError(f"{key} {error}") from None
        return self

    @model_validator(mode="after")
    def _keys_name_tiers(self) -> Self:
        known = {tier for model in self.models.values() for tier in model.ladder}
        for name, key in self.auth.keys.items():
            for table, part in (("defaults", key.defaults), ("limits", key.limits)):
                for field, tier in (("floor", part and part.floor), ("ceiling", part and part.ceiling)):
                    if tier and tier not in known:
                        raise ValueError(
                            f"auth.keys.{name}.{table}.{field} must be one of {', '.join(sorted(known))}, got {tier!r}"
                        )
            self._check_limits(name, key)
        return self

    def _check_limits(self, name: str, key: KeySettings) -> None:
        floor, ceiling = (key.limits.floor, key.limits.ceiling) if key.limits else (None, None)
        for model, settings in self.models.items():
            ladder = settings.ladder
            if floor in ladder and ceiling in ladder and ladder.index(floor) > ladder.index(ceiling):
                raise ValueError(
                    f"auth.keys.{name}.limits.floor ({floor}) must not be above its ceiling ({ceiling}) on the ladder "
                    f"of model {model}, {', '.join(ladder)}"
                )

    @model_validator(mode="after")
    def _web_pages_need_keys(self) -> Self:
        # Whether there are any is asked where they are read: other processes than intakes do not see them.
        if self.intake.cors_origins and self.auth.required is False:
            raise ValueError(
                "intake.cors_origins needs API keys, or all visitors of these pages could use the intake: do not set "
                "auth.required = false"
            )
        return self

    @model_validator(mode="after")
    def _names_of_models_differ(self) -> Self:
        _ = self.choices
        return self

    @model_validator(mode="after")
    def _candidates_fit(self) -> Self:
        for name in self.models:
            check_canary(name, self.models, self.redis)
        return self

    @cached_property
    def choices(self) -> Mapping[str, ModelChoice]:
        """What each name means that requests may use; made once, for requests ask for one each.

        Raises:
            ValueError: one name means two things.

        """
        return choices_of(self.models)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("choices", None)  # those of the models before
        return copied

    def redis_of(self, model: str) -> RedisSettings:
        """Return where a model's queue is."""
        return self.model(model).redis or self.redis

    def at_redis_of(self, model: str) -> Self:
        """Return the settings of the models whose queues are at the same Redis as this one's, with that Redis."""
        redis = self.redis_of(model)
        if all(self.redis_of(name) == redis for name in self.models):
            return self if redis == self.redis else self.model_copy(update={"redis": redis})
        models = {name: settings for name, settings in self.models.items() if self.redis_of(name) == redis}
        tiers = {tier for settings in models.values() for tier in settings.ladder}
        auth = self.auth.model_copy(update={"keys": {name: key.within(tiers) for name, key in self.auth.keys.items()}})
        return self.model_copy(update={"models": models, "redis": redis, "auth": auth}).as_part_of(self)

    def as_part_of(self, whole: Self) -> Self:
        """Return these settings, that say which models there are elsewhere as well."""
        if whole.model_names != self.model_names:
            self._names = whole.model_names
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models of the whole service, also where these settings are the part of one Redis."""
        return self._names or tuple(self.models)

    @property
    def at_each_redis(self) -> list[Self]:
        """The settings for each Redis that has queues; the first one is also where files, batches and the like are."""
        firsts: list[str] = []
        for name in sorted(self.models, key=lambda name: self.models[name].redis is not None):
            if self.redis_of(name) not in [self.redis_of(first) for first in firsts]:
                firsts.append(name)
        return [self.at_redis_of(name) for name in firsts]

    def choice(self, name: str) -> ModelChoice:
        """Return what the `model` of a request means.

        Raises:
            ModelNotFoundError: there is no such model, alias or tier.

        """
        try:
            return self.choices[name]
        except KeyError:
            raise ModelNotFoundError(name, self._near(name)) from None

    def _near(self, name: str) -> str:
        """Return what there is: the tiers of a model, where its name is right, else the models."""
        start = name[: max(0, *map(name.rfind, ":@"))]
        known = self.choices.get(start)
        if known is None or known.tier:
            return ", ".join(self.model_names)
        return ", ".join(f"{start}:{tier}" for tier in self.models[known.model].ladder)

    def model(self, name: str) -> ModelSettings:
        try:
            return self.models[name]
        except KeyError:
            raise ConfigError(f"model must be one of {', '.join(self.model_names)}, got {name!r}") from None
