"""Whether a measured tier keeps enough of the reference, and of what is served, to be published. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bitladder.settings.publish_section import PublishSettings
from calibration.artifacts.evaluation_report import Comparison, Estimate, Report, TierReport, Verdict
from calibration.artifacts.hardware import speed_of_another
from calibration.artifacts.metrics import METRICS, Better, Counted, metric_of
from calibration.errors import InputError
from calibration.statistics import beyond_chance, chance_of

_ONE_SIDED = 0.025  # what lies beyond one end of a 95 % interval
_LOWER_IS_BETTER = (Better.LOWER, Better.NONE)  # of what is compared with the served checkpoint: no cost is


def check_limits(settings: PublishSettings, report: Report, *, of_one_model: bool) -> list[str]:
    """Raise InputError unless every limit is of a metric that has a recovery; return those that judge nothing here.

    A limit of one kind of text or one task must be of one that was measured: a name that is written wrong would never
    apply, and nobody would notice. Where there are several models, it may be another one's.
    """
    unmeasured = _check("publish.min_recovery", settings.min_recovery, report, of_one_model=of_one_model)
    for tier, limits in settings.tiers.items():
        key = f"publish.tiers.{tier}.min_recovery"
        unmeasured += _check(key, limits.min_recovery, report, of_one_model=of_one_model)
    return unmeasured


def _check(key: str, limits: Mapping[str, float], report: Report, *, of_one_model: bool) -> list[str]:
    known = [name for name, metric in METRICS.items() if metric.better is not Better.NONE]
    judged = [tier for tier in report.tiers if tier.tier != report.reference]
    names = dict.fromkeys(name for tier in judged for name in (*tier.recovery, *tier.metrics))
    measured = [name for name in names if metric_of(name) in known]
    unmeasured = [name for name in limits if measured and "." in name and name not in measured]
    for name, limit in limits.items():
        if metric_of(name) not in known:
            raise InputError(f"{key}.{name}: must be of {', '.join(known)}")
        if of_one_model and name in unmeasured:
            raise InputError(f"{key}.{name}: was not measured; the report has {', '.join(measured)}")
        if not 0 <= limit <= 10:
            raise InputError(f"{key}.{name}: must be from 0 to 10, got {limit}")
    return [f"{key}.{name}" for name in unmeasured]


def judge(
    tier: TierReport, settings: PublishSettings, machine: Mapping[str, str], *, is_reference: bool, hardware: str = ""
) -> Verdict:
    """Return why the tier must not be published, if anything, and which figures were no proof of anything."""
    if is_reference:
        return Verdict()
    limits = settings.limits_of(tier.tier)
    limited = {name: limit for name in tier.recovery if (limit := _limit(name, limits.min_recovery)) is not None}
    notes = {name: note for name in (*limited, *tier.metrics) if (note := _too_few(name, tier, limits))}
    proofs = [name for name in limited if name not in notes]
    reasons = [text for name in proofs for text in _too_low(name, tier.recovery[name], limited[name])]
    reasons += [
        f"{name} is at least {figure.value:.3g} (a lower bound), at most {limits.max_kl:g} is allowed (publish.max_kl)"
        for name, figure in tier.metrics.items()
        if METRICS[metric_of(name)].is_lower_bound and name not in notes and figure.value > limits.max_kl
    ]
    elsewhere = speed_of_another(hardware or tier.hardware, machine)
    speeds = [name for name in proofs if METRICS[metric_of(name)].counted is Counted.RUNS]
    if elsewhere and speeds:
        reasons.append(f"{', '.join(speeds)} (publish.min_recovery) proves nothing: {elsewhere}")
    if not proofs:
        asked = ", ".join(limits.min_recovery) or "no metric"
        reasons.append(f"none of {asked} (publish.min_recovery) was measured over enough to judge it")
        reasons += notes.values()
    return Verdict(reasons=tuple(reasons), notes=tuple(notes.values()))


def worse_than_served(tier: TierReport, settings: PublishSettings) -> list[str]:
    """Return in what the tier is worse than the checkpoint that it would replace, beyond chance.

    Dozens of figures are looked at, so that some of an equal checkpoint lie beyond their intervals: all together may
    refuse one by chance no more often than a single one would (Holm's correction).
    """
    if tier.incumbent is None:
        return []
    compared = {name: figure for name, figure in tier.incumbent.compared.items() if not _too_few(name, tier, settings)}
    by_chance = {name: _chance_of_worse(name, figure) for name, figure in compared.items()}
    worse = beyond_chance(by_chance, _ONE_SIDED)
    return [
        f"{name} is worse than the served checkpoint's by {_shown(name, figure)}"
        for name, figure in compared.items()
        if name in worse
    ]


def _chance_of_worse(name: str, compared: Comparison) -> float:
    """Return the one-sided p-value that it is not worse, as its interval tells it."""
    if METRICS[metric_of(name)].better in _LOWER_IS_BETTER:
        return chance_of(compared.difference, compared.difference - compared.low)
    return chance_of(-compared.difference, compared.high - compared.difference)


def _shown(name: str, compared: Comparison) -> str:
    low, high = sorted((abs(compared.low), abs(compared.high)))
    show = METRICS[metric_of(name)].show
    return f"{show(abs(compared.difference))} ({show(low)} to {show(high)})"


def _limit(name: str, limits: Mapping[str, float]) -> float | None:
    """Return the limit of a metric; one of its own kind of text goes before that of all kinds."""
    return limits.get(name, limits.get(metric_of(name)))


def _too_few(name: str, tier: TierReport, settings: PublishSettings) -> str:
    """Return what tells that a figure was measured over too little to judge anything; '' where it was not."""
    figure = tier.recovery.get(name) or tier.metrics.get(name)
    counted = METRICS[metric_of(name)].counted
    minimum = {Counted.TOKENS: settings.min_tokens, Counted.ANSWERS: settings.min_answers}.get(counted, 1)
    if figure is None or figure.n >= minimum:
        return ""
    return f"{name} judges nothing: {figure.n} {counted} of at least {minimum} (publish.min_{counted})"


def _too_low(name: str, figure: Estimate, limit: float) -> Iterator[str]:
    value = figure.high if METRICS[metric_of(name)].of_few_items else figure.value
    if value < limit:
        yield (
            f"{name} keeps {figure.value:.3f} of the reference ({figure.low:.3f} to {figure.high:.3f}), "
            f"{limit:g} is the least (publish.min_recovery)"
        )
