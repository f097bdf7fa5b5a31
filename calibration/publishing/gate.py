"""Whether a measured tier keeps enough of the reference to be published. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bitladder.settings.publish_section import PublishSettings
from calibration.artifacts.evaluation_report import Estimate, Report, TierReport
from calibration.artifacts.metrics import METRICS, Better, metric_of
from calibration.errors import InputError


def check_limits(limits: Mapping[str, float], report: Report, *, of_one_model: bool) -> list[str]:
    """Raise InputError unless every limit is of a metric that has a recovery; return those that judge nothing here.

    A limit of one kind of text or one task must be of one that was measured: a name that is written wrong would never
    apply, and nobody would notice. Where there are several models, it may be another one's.
    """
    known = [name for name, metric in METRICS.items() if metric.better is not Better.NONE]
    judged = [tier for tier in report.tiers if tier.tier != report.reference]
    names = dict.fromkeys(name for tier in judged for name in (*tier.recovery, *tier.metrics))
    measured = [name for name in names if metric_of(name) in known]
    unmeasured = [name for name in limits if measured and "." in name and name not in measured]
    for name, limit in limits.items():
        if metric_of(name) not in known:
            raise InputError(f"publish.min_recovery.{name}: must be of {', '.join(known)}")
        if of_one_model and name in unmeasured:
            raise InputError(f"publish.min_recovery.{name}: was not measured; the report has {', '.join(measured)}")
        if not 0 <= limit <= 10:
            raise InputError(f"publish.min_recovery.{name}: must be from 0 to 10, got {limit}")
    return unmeasured


def shortcomings(tier: TierReport, settings: PublishSettings, *, is_reference: bool) -> list[str]:
    """Return why the tier must not be published; nothing for one that may be."""
    if is_reference:
        return []
    reasons: list[str] = []
    judged = 0
    for name, figure in tier.recovery.items():
        limit = _limit(name, settings.min_recovery)
        if limit is not None:
            judged += 1
            reasons += _too_low(name, figure, limit)
    reasons += [
        f"{name} is {figure.value:.3g}, at most {settings.max_kl:g} is allowed (publish.max_kl)"
        for name, figure in tier.metrics.items()
        if metric_of(name) == "kl_mean" and figure.value > settings.max_kl
    ]
    if not judged:
        reasons.append(f"none of {', '.join(settings.min_recovery) or 'no metric'} (publish.min_recovery) was measured")
    return reasons


def _limit(name: str, limits: Mapping[str, float]) -> float | None:
    """Return the limit of a metric; one of its own kind of text goes before that of all kinds."""
    return limits.get(name, limits.get(metric_of(name)))


def _too_low(name: str, figure: Estimate, limit: float) -> Iterator[str]:
    counted = figure.high if METRICS[metric_of(name)].of_few_items else figure.value
    if counted < limit:
        yield (
            f"{name} keeps {figure.value:.3f} of the reference ({figure.low:.3f} to {figure.high:.3f}), "
            f"{limit:g} is the least (publish.min_recovery)"
        )
