"""Settings of routing: the lane and the floor tier of a request."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bitladder.settings.base import Section


class LaneSettings(Section):
    """Which lane a priority means, and which lanes overflow when they are long."""

    urgent_from: int = Field(8, ge=1, le=10, description="priorities from here on go to the urgent lane")
    batch_to: int = Field(2, ge=0, le=9, description="priorities up to here go to the batch lane")
    overflow: tuple[Literal["urgent", "normal", "batch"], ...] = Field(
        ("urgent", "normal"),
        description="lanes whose depth makes jobs overflow; others do if their tier is dead or their time runs out",
    )


class PolicySettings(Section):
    """How the floor tier is chosen."""

    name: str = Field("article", description="article, or fixed:<tier>")
    entropy_bits: float = Field(4.5, ge=0, le=8, description="above: the middle tier")
    top_priority: int = Field(8, ge=1, le=10, description="from here on: the top tier")
    top_latency_ms: int = Field(800, ge=0, description="a maximum latency above this: the top tier")
