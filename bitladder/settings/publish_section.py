"""Settings of the publication of checkpoints."""

from __future__ import annotations

from pydantic import Field

from bitladder.settings.base import Name, Section

_MAX_KL = "maximum divergence from the reference, mean nats per token; what is held against it is a lower bound"


class TierLimits(Section):
    """What is demanded of the checkpoints of one tier; what is not set here is as for every tier."""

    min_recovery: dict[str, float] = Field({}, description="as publish.min_recovery; other metrics keep its limits")
    max_kl: float | None = Field(None, gt=0, description="as publish.max_kl")


class PublishSettings(Section):
    """What a checkpoint must keep of the reference to be published, and where that is written."""

    file: str = Field("ladder.toml", description="the published release, beside the configuration file; empty: none")
    keep: int = Field(20, ge=1, le=1000, description="former releases kept for rollback")
    min_recovery: dict[str, float] = Field(
        {"perplexity": 0.9, "top1": 0.75, "pass_at_1": 0.8, "task": 0.9},
        description="minimum share of the reference's score that a tier keeps, by metric, where that was measured",
    )
    max_kl: float = Field(0.2, gt=0, description=_MAX_KL)
    min_tokens: int = Field(
        500, ge=1, description="a figure of text that was measured over fewer tokens judges nothing"
    )
    min_answers: int = Field(
        20, ge=1, description="a share of right answers that was measured over fewer judges nothing"
    )
    tiers: dict[Name, TierLimits] = Field({}, description="limits of one tier, by its name")

    def limits_of(self, tier: str) -> PublishSettings:
        """Return the settings with the limits that hold for a tier."""
        of_tier = self.tiers.get(tier, TierLimits())
        recovery = {**self.min_recovery, **of_tier.min_recovery}
        return self.model_copy(update={"min_recovery": recovery, "max_kl": of_tier.max_kl or self.max_kl})
