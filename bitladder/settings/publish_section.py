"""Settings of the publication of checkpoints."""

from __future__ import annotations

from pydantic import Field

from bitladder.settings.base import Section


class PublishSettings(Section):
    """What a checkpoint must keep of the reference to be published, and where that is written."""

    file: str = Field("ladder.toml", description="the published release, beside the configuration file; empty: none")
    keep: int = Field(20, ge=1, le=1000, description="former releases kept for rollback")
    min_recovery: dict[str, float] = Field(
        {"perplexity": 0.9, "top1": 0.75, "pass_at_1": 0.8, "task": 0.9},
        description="minimum share of the reference's score that a tier keeps, by metric, where that was measured",
    )
    max_kl: float = Field(0.2, gt=0, description="maximum divergence from the reference, mean nats per token")
