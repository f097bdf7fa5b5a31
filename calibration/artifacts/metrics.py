"""The metrics of a report, which way each is better, and the share of the reference that a tier keeps. Pure."""

from __future__ import annotations

from enum import StrEnum


class Better(StrEnum):
    """How a tier's value is held against the reference's."""

    HIGHER = "higher"  # recovery = tier / reference
    LOWER = "lower"  # recovery = reference / tier
    AGREEMENT = "agreement"  # is against the reference already: recovery = the value
    NONE = "none"  # no recovery: 0 for the reference itself, or a cost


METRICS = {
    "perplexity": Better.LOWER,
    "kl_mean": Better.NONE,  # nats per token, KL(reference || tier)
    "top1": Better.AGREEMENT,  # share of tokens where tier and reference would say the same
    "pass_at_1": Better.HIGHER,
    "task": Better.HIGHER,  # share of the items of an own task that were right
    "tokens_per_s": Better.HIGHER,
    "ttft_ms": Better.LOWER,
    "memory_bytes": Better.NONE,
    "cost_per_mtok": Better.NONE,  # price of the tier's hardware for a million tokens at the measured speed
}


# What an answer is worth; the others say how fast it comes and what it takes.
QUALITY = ("perplexity", "top1", "pass_at_1", "task")


def metric_of(name: str) -> str:
    """Return `perplexity` of `perplexity.code`."""
    return name.partition(".")[0]


def recovery(name: str, value: float, reference: float) -> float | None:
    """Return the share of the reference that is kept, or None where there is no such thing."""
    better = METRICS[metric_of(name)]
    if better is Better.AGREEMENT:
        return value
    over, under = (value, reference) if better is Better.HIGHER else (reference, value)
    return None if better is Better.NONE or under == 0 else over / under
