"""The report of a run: pure functions of its samples. The words are those of vLLM's and GuideLLM's benchmarks."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bitladder.cli.ops.loadtest.prompts import BANDS, band_of
from bitladder.cli.ops.loadtest.request_sample import UNFINISHED, Sample

Report = dict[str, Any]
_PERCENTILES = (50, 90, 95, 99)
_PLACES = 6


def statistics(values: Iterable[float]) -> dict[str, float | int] | None:
    """Return mean, percentiles (by nearest rank) and maximum in seconds; None of no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    ranks = {f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in _PERCENTILES}
    numbers = {"mean": fmean(ordered), **ranks, "max": ordered[-1]}
    return {"count": len(ordered), **{name: round(value, _PLACES) for name, value in numbers.items()}}


def make_report(
    samples: Sequence[Sample], warm_up_s: float, slo: Mapping[str, float], *, is_interrupted: bool = False
) -> Report:
    """Return all figures of the requests that were due behind the warm-up.

    What was under way at the end is an error, unless the run was interrupted: then it is only counted.
    """
    counted = [sample for sample in samples if sample.due_s >= warm_up_s]
    answered = [sample for sample in counted if sample.is_answered]
    span_s = max((sample.end_s for sample in counted), default=warm_up_s) - warm_up_s
    judged = [sample for sample in counted if not (is_interrupted and sample.code == UNFINISHED)]
    return {
        "requests": {"sent": len(samples), "warm_up": len(samples) - len(counted), **_counts(counted)},
        "seconds": round(span_s, 3),
        "throughput": _throughput(answered, span_s, slo),
        "shares": _shares(judged, slo),
        "latency": _latency(answered),
        "errors": dict(Counter(sample.code for sample in counted if sample.code).most_common()),
        # The first message of each code: a mistake on the command line is named there alone.
        "messages": {sample.code: sample.message for sample in reversed(counted) if sample.message},
        "overflow": _overflow(answered),
        "cost": _cost(answered),
        "by_tier": _groups(answered, lambda sample: sample.tier or "unknown"),
        "by_entropy": _groups(answered, lambda sample: band_of(sample.request.entropy), BANDS),
        "by_kind": _groups(answered, lambda sample: sample.request.kind),
        "by_mode": _groups(answered, lambda sample: sample.request.mode.value),
    }


def _counts(counted: Sequence[Sample]) -> dict[str, int]:
    refused = sum(sample.is_refused for sample in counted)
    unfinished = sum(sample.code == UNFINISHED for sample in counted)
    answered = sum(sample.is_answered for sample in counted)
    failed = len(counted) - answered - refused - unfinished
    return {"answered": answered, "refused": refused, "failed": failed, "unfinished": unfinished}


def _throughput(answered: Sequence[Sample], span_s: float, slo: Mapping[str, float]) -> dict[str, float]:
    good = sum(_is_good(sample, slo) for sample in answered)
    return {
        "throughput": _rate(len(answered), span_s),
        "tokens": _rate(sum(sample.completion_tokens for sample in answered), span_s),
        "input_tokens": _rate(sum(sample.prompt_tokens for sample in answered), span_s),
        **({"goodput": _rate(good, span_s)} if slo else {}),
    }


def _shares(judged: Sequence[Sample], slo: Mapping[str, float]) -> dict[str, float]:
    answered = [sample for sample in judged if sample.is_answered]
    good = sum(_is_good(sample, slo) for sample in answered)
    return {
        "errors": _share(len(judged) - len(answered), len(judged)),
        "refused": _share(sum(sample.is_refused for sample in judged), len(judged)),
        "overflow": _share(sum(bool(sample.overflowed_from) for sample in answered), len(answered)),
        **({"good": _share(good, len(judged))} if slo else {}),
    }


def _overflow(answered: Sequence[Sample]) -> list[dict[str, Any]]:
    pairs = Counter((sample.overflowed_from, sample.tier) for sample in answered if sample.overflowed_from)
    return [{"from": low, "to": high, "requests": count} for (low, high), count in pairs.most_common()]


def _latency(answered: Sequence[Sample]) -> Report:
    """`e2e` and `ttft` begin when a request should have been sent, `e2e_from_send` when it was."""
    return {
        "e2e": statistics(sample.latency_s for sample in answered),
        "e2e_from_send": statistics(sample.end_s - sample.sent_s for sample in answered),
        "ttft": statistics(sample.ttft_s for sample in answered if sample.ttft_s is not None),
        "itl": statistics(gap_s for sample in answered for gap_s in sample.gaps_s),
        "queue": statistics(sample.queue_s for sample in answered if sample.queue_s is not None),
        "late_to_send": statistics(sample.sent_s - sample.due_s for sample in answered),
    }


def _groups(answered: Sequence[Sample], key: Callable[[Sample], str], order: Sequence[str] = ()) -> Report:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in answered:
        groups[key(sample)].append(sample)
    names = [name for name in order if name in groups] or sorted(groups)
    return {
        name: {
            "requests": len(groups[name]),
            "share": _share(len(groups[name]), len(answered)),
            "e2e": statistics(sample.latency_s for sample in groups[name]),
            "ttft": statistics(sample.ttft_s for sample in groups[name] if sample.ttft_s is not None),
            "mean_entropy": round(fmean(sample.request.entropy for sample in groups[name]), 3),
            "cost": _cost(groups[name]),
        }
        for name in names
    }


def _cost(answered: Sequence[Sample]) -> Report:
    known = [sample for sample in answered if sample.cost is not None]
    total = sum(sample.cost or 0.0 for sample in known)
    tokens = sum(sample.completion_tokens for sample in known)
    return {
        "total": round(total, 9),
        "per_request": round(total / len(known), 9) if known else None,
        "per_1000_tokens": round(total / tokens * 1000, 9) if tokens else None,
    }


def _is_good(sample: Sample, slo: Mapping[str, float]) -> bool:
    """Return whether an answer kept all of the objectives that can be measured of it."""
    slowest_gap_s = max(sample.gaps_s, default=0.0)
    values = {"e2e": sample.latency_s, "ttft": sample.ttft_s, "itl": slowest_gap_s}
    return all((value := values[name]) is None or value <= limit for name, limit in slo.items())


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


def _share(count: int, total: int) -> float:
    return round(count / total, 6) if total else 0.0
