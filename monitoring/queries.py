"""Expressions of PromQL that panels share, over what the variables of a dashboard choose."""

from __future__ import annotations

SCOPE = 'job=~"$job", model=~"$model", tier=~"$tier"'
JOB = 'job=~"$job"'
QUEUES = 'job=~"$job", queue=~"$model:$tier:.*"'


def rate(metric: str, by: str = "tier", where: str = SCOPE) -> str:
    """Return how much a counter grows in a second, over all processes."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def total(metric: str, where: str = SCOPE) -> str:
    """Return the same as one figure; 0 where a counter with labels has not begun."""
    return f"(sum(rate({metric}{{{where}}}[$__rate_interval])) or vector(0))"


def share(part: str, whole: str, by: str = "tier") -> str:
    """Return which part of one counter's growth another's is."""
    return f"{rate(part, by)} / {rate(whole, by)}"


def highest(metric: str, by: str = "model, tier", where: str = SCOPE) -> str:
    """Return a gauge that every intake shows alike."""
    return f"max by ({by}) ({metric}{{{where}}})"


def by_tier(metric: str, how: str = "sum") -> str:
    """Return a gauge of queues by the tier in their names; every intake shows the same queues."""
    named = f'label_replace(max by (queue) ({metric}{{{QUEUES}}}), "tier", "$1", "queue", "[^:]+:([^:]+):.*")'
    return f"{how} by (tier) ({named})"


def quantile(part: float, metric: str, by: str = "tier", where: str = SCOPE) -> str:
    """Return a quantile of a histogram, over all processes."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({part}, sum by ({labels}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))"


def mean(metric: str, by: str = "tier", where: str = SCOPE) -> str:
    """Return the mean of what a histogram saw."""
    return f"{rate(f'{metric}_sum', by, where)} / {rate(f'{metric}_count', by, where)}"
