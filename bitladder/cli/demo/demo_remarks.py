"""What the demo's figures mean on this machine, and what decides elsewhere, in sentences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from bitladder.cli.demo.demo_requests import ServedBatch
from bitladder.cli.demo.demo_tables import speed
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.paths import in_cache
from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.manifest import read_fields

# A request that waited longer for its tier, while others were idle, is explained.
_LONG_WAIT_MS = 1000
# One request alone is no exact measure of speed: smaller differences are none.
_SLOWER = 0.9
_GPU = Path("/dev/nvidiactl")


def waiting_remark(batch: ServedBatch, name: str, model: ModelSettings) -> str:
    """Return why requests waited for a tier although others had room."""
    tier = model.tiers[0]
    waited = [served for served in batch.served if (served.job.get("queue_ms") or 0) > _LONG_WAIT_MS]
    if not waited or any(served.has_escalated for served in batch.served):
        return ""
    longest_s = max(served.job["queue_ms"] for served in waited) / 1000
    return (
        f"{len(waited)} requests waited for their tier, up to {longest_s:.1f} s, and none escalated: a queue overflows "
        f"when more than its high mark wait (models.{name}.tiers.{tier.name}.high = {tier.high}), when half of a "
        "request's time is over (X-Deadline-Ms), or when its tier has no worker. Until then waiting is cheaper."
    )


def burst_remark(escalating: ServedBatch, kept: ServedBatch, name: str, model: ModelSettings) -> str:
    """Return what the escalation brought and cost."""
    tier = model.tiers[0]
    escalated = sum(served.has_escalated for served in escalating.served)
    if not escalated:
        return (
            f"Nothing escalated: this machine was too slow to bring {len(escalating.served)} requests at once, so that "
            f"never more than {tier.high} waited for {tier.name} (models.{name}.tiers.{tier.name}.high)."
        )
    times = escalating.cost / kept.cost if kept.cost else 1.0
    return (
        f"{len(escalating.served)} requests at once are more than the {tier.slots} that {tier.name} runs and the "
        f"{tier.high} that it lets wait: higher tiers took {escalated}, until {tier.low} waited. The last answer came "
        f"after {escalating.wall_s:.1f} s instead of {kept.wall_s:.1f} s, for {times:.1f} times the cost. "
        f"models.{name}.tiers.{tier.name}.high makes it escalate earlier or later."
    )


def sharing_remark(model: ModelSettings, gpu: Path = _GPU) -> str:
    """Return why escalation brings less here than it would on hardware of each tier's own."""
    what = "GPU" if gpu.exists() else f"{os.cpu_count()} cores"
    return (
        f"All tiers share the {what} of this machine: what escalates takes from {model.tiers[0].name} what it needs. "
        "On hardware of each tier's own it takes nothing."
    )


def speed_remark(batches: Sequence[ServedBatch], model: ModelSettings) -> str:
    """Return which lower tiers are slower than a higher one on this machine, and what decides elsewhere; '' if none."""
    speeds = {tier.name: speed(batch) for tier, batch in zip(model.tiers, batches, strict=True)}
    slower = [
        f"{low} is slower than {high} on this machine ({speeds[low]:.1f} tokens/s against {speeds[high]:.1f})"
        for low, high in combinations(speeds, 2)
        if speeds[low] < _SLOWER * speeds[high]
    ]
    if not slower:
        return ""
    meant = ", ".join(dict.fromkeys(tier.hardware for tier in model.tiers))
    return (
        f"{'; '.join(slower)}. A processor is bound by arithmetic: it spells 4-bit weights out before each product, "
        f"and has instructions for 8-bit ones or for bf16. On what the tiers are meant for ({meant}) every token of "
        "a small batch reads all weights, so bytes per weight over memory bandwidth decides: int4 reads half of what "
        "int8 and fp8 do. `bitladder calibrate evaluate` measures yours."
    )


def checkpoint_remark(model: ModelSettings, vllm: VllmSettings) -> str:
    """Return which tiers were served from quick checkpoints, and how to get good ones; '' if none were."""
    quick = [
        tier.name
        for tier in model.tiers
        if tier.checkpoint and read_fields(in_cache(tier.checkpoint, vllm.cache_dir)).get("quick") is True
    ]
    if not quick:
        return ""
    return (
        f"{', '.join(quick)}: quick checkpoints, rounded to the nearest number and not measured, so the answers are "
        "worse than the tiers can give. `make checkpoints` makes the good ones in their place, in some six minutes on "
        "two idle cores, and this demo then runs on them."
    )
