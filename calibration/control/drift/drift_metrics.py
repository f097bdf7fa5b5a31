"""The metrics of a pass of drift, as rows (bitladder/process/metric_table.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bitladder.process.metric_table import Row
from calibration.control.metrics_file import Value

_REQUESTS = "bitladder_drift_requests_total"
_SKIPPED = "bitladder_drift_skipped_total"
_INDEX = "bitladder_drift_stability_index"
_MOVED = "bitladder_drift_moved"
_LABELS = "bitladder_promise_labels"
_BROKEN = "bitladder_promise_broken"
_RISK = "bitladder_promise_risk_ratio"
_ALPHA = "bitladder_promise_alpha_ratio"
_ENDED = "bitladder_drift_last_pass_timestamp_seconds"
_FEATURES = {"feature": 40}
ROWS = (
    Row(_REQUESTS, "counter", "requests", "How many requests were held against the reference labels?"),
    Row(_SKIPPED, "counter", "lines", "How many lines of the stream say nothing that counts?"),
    Row(_INDEX, "gauge", "", "How far is each feature of the last window from the reference (PSI)?", _FEATURES),
    Row(_MOVED, "gauge", "", "Which features have moved since the reference (1)?", _FEATURES),
    Row(_LABELS, "gauge", "labels", "How many shadow labels is the promise held against, since its limit is in force?"),
    Row(_BROKEN, "gauge", "", "Is a promise broken: do more requests lose too much than it allows (1)?"),
    Row(
        _RISK,
        "gauge",
        "",
        "What do all requests lose, as the promise counts it: the share over its threshold, or the mean?",
    ),
    Row(_ALPHA, "gauge", "", "What may they lose?"),
    Row(_ENDED, "gauge", "seconds", "When did the last pass end?"),
)


def values_of(answer: Mapping[str, Any]) -> dict[str, Value]:
    """Return the metrics of what a pass has found."""
    losses = answer["losses"] or {}
    names = {alarm["feature"] for alarm in answer["moved"]}
    return {
        _REQUESTS: float(answer["requests"]),
        _SKIPPED: float(sum(answer["skipped"].values())),
        _INDEX: {(name,): index for name, index in answer["indices"].items()},
        _MOVED: {(name,): float(name in names) for name in {*answer["indices"], *names}},
        _LABELS: losses.get("labels"),
        _BROKEN: float(losses["is_broken"]) if losses else None,
        _RISK: losses.get("risk"),
        _ALPHA: losses["promise"]["alpha"] if losses else None,
        _ENDED: time.time(),
    }
