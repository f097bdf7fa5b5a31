"""The metrics of a shadow, as rows (bitladder/process/metric_table.py); docs/metrics.md is written from them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bitladder.process.metric_table import TIER, Row
from calibration.control.metrics_file import Value
from calibration.control.shadow.shadow_figures import VERDICTS

_PROMPTS = "bitladder_shadow_prompts_total"
_SKIPPED = "bitladder_shadow_skipped_total"
_LABELS = "bitladder_shadow_labels_total"
_OUTCOMES = "bitladder_shadow_outcomes_total"
_LOSS = "bitladder_shadow_loss"
_OVER = "bitladder_shadow_over_threshold_ratio"
_SAVING = "bitladder_shadow_saving_per_request"
_REQUESTS = "bitladder_shadow_requests_total"
_COST = "bitladder_shadow_cost_total"
_WAITING = "bitladder_shadow_waiting"
_ENDED = "bitladder_shadow_last_pass_timestamp_seconds"
ROWS = (
    Row(_PROMPTS, "counter", "prompts", "How many captured prompts were looked at?"),
    Row(_SKIPPED, "counter", "prompts", "How many chosen prompts were not run again, and why?", {"reason": 20}),
    Row(_LABELS, "counter", "labels", "How many labels are there, by the tier that had served?", TIER),
    Row(
        _OUTCOMES,
        "counter",
        "labels",
        "How many of a tier's answers win against the reference's, tie or lose?",
        {"tier": None, "verdict": 3},
    ),
    Row(_LOSS, "gauge", "as the measure has it", "What does a tier lose on its live traffic, on average?", TIER),
    Row(_OVER, "gauge", "ratio", "Which share of a tier's live traffic loses more than the threshold?", TIER),
    Row(_SAVING, "gauge", "currency of the price", "What does a request save that a low tier serves, on average?"),
    Row(_REQUESTS, "counter", "requests", "How many requests has the shadow made?"),
    Row(_COST, "counter", "currency of the price", "What have they cost?"),
    Row(_WAITING, "gauge", "prompts", "How many chosen prompts wait for their turn?"),
    Row(_ENDED, "gauge", "seconds", "When did the last pass end (Unix time)?"),
)


def values_of(figures: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values of the rows from the figures of a pass."""
    tiers: Mapping[str, Any] = figures["tiers"]
    prompts, total = figures["prompts"], figures["usage"]["total"]
    return {
        _PROMPTS: prompts["seen"],
        _SKIPPED: {(reason,): count for reason, count in prompts["skipped"].items()},
        _LABELS: {(tier,): sums["labels"] for tier, sums in tiers.items()},
        _OUTCOMES: {(tier, verdict): sums[verdict]["count"] for tier, sums in tiers.items() for verdict in VERDICTS},
        _LOSS: {(tier,): sums["mean_loss"]["value"] for tier, sums in tiers.items()},
        _OVER: {(tier,): sums["over"]["share"] for tier, sums in tiers.items()},
        _SAVING: figures["savings"].get("per_request"),
        _REQUESTS: total["requests"],
        _COST: total["cost"],
        _WAITING: prompts["waiting"],
        _ENDED: time.time(),
    }
