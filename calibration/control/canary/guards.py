"""What ends a canary before its test does: a candidate that does not serve as it should. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from calibration.control.canary.spec import Spec

# By which the canary's own jobs are known.
TAG = "canary"
# Fewer failures say nothing.
_MIN_FAILED = 5


def overview_problem(spec: Spec, overview: Mapping[str, Any]) -> str:
    """Return what GET /v1/overview says against the candidate; '' where that is nothing."""
    tiers = next((entry["tiers"] for entry in overview["models"] if entry["model"] == spec.served_by), None)
    if tiers is None:
        return f"there is no model {spec.served_by} any more"
    if not any(tier["workers"] for tier in tiers):
        return f"{spec.served_by} has no live worker"
    for tier in tiers:
        name = f"{spec.served_by} {tier['tier']}"
        if tier["breaker"] == "open" or tier["shifted"]:
            return f"too many jobs break at {name}"
        if (tier["expected_wait_s"] or 0) > spec.max_wait_s:
            return f"a job would wait {tier['expected_wait_s']:.0f} s for {name}, the limit is {spec.max_wait_s:g} s"
    return ""


def failure_problem(spec: Spec, failed: Sequence[Mapping[str, Any]], since: float, touched: int) -> str:
    """Return whether too many of the candidate's jobs have failed; those that measure it do not count."""
    if not spec.candidate:
        return ""
    count = sum(1 for _ in _of_others(failed, since))
    share = count / max(touched, count, 1)
    if count < _MIN_FAILED or share <= spec.max_failed:
        return ""
    return f"{count} of {max(touched, count)} requests failed at {spec.candidate}, the limit is {spec.max_failed:.1%}"


def _of_others(jobs: Iterable[Mapping[str, Any]], since: float) -> Iterable[Mapping[str, Any]]:
    return (job for job in jobs if TAG not in job["tags"] and (job["created_at"] or 0) >= since)
