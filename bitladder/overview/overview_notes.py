"""What an operator should look at, in words, the worst first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bitladder.overview.shape import ModelOverview, Note, Overview, Severity, TierOverview
from bitladder.queue.calls.read import Depths
from bitladder.queue.calls.worker_report import Breaker
from bitladder.queue.pauses import EVERYTHING
from bitladder.queue_name import Lane

# As the alert of the same name (monitoring/alerts.yaml): jobs of the batch lane wait for hours, and may.
_OLD_S = 60.0
_NEARLY_FULL = 0.8
# In the place of an operator.
_RQ_SUSPEND = "rq suspend"
_LANES = (Lane.URGENT, Lane.NORMAL)
_ORDER = list(Severity)


def notes_of(
    overview: Overview, depths: Mapping[str, Depths], *, refused_change: str, max_memory_share: float, max_depth: int
) -> list[Note]:
    """Return the notes of a sample; those of the same severity in the order of what they are about.

    `refused_change`: what is wrong with the settings' files, while what was before stays; `max_memory_share`: above it
    no new jobs are taken; `max_depth`: nor in a queue where so many wait.
    """
    notes = [*_of_all(overview, refused_change, max_memory_share)]
    for model in overview.models:
        notes += _of_model(model)
        for queue in depths[model.model].queues:
            if queue.problem:
                text = f"{queue.queue}: takes and gives no jobs, {queue.problem}"
                notes.append(Note(severity=Severity.CRITICAL, text=text, model=model.model, runbook="redis"))
            if queue.depth >= max_depth:
                text = f"{queue.queue}: full, {queue.depth} jobs wait; new ones are refused"
                notes.append(Note(severity=Severity.CRITICAL, text=text, model=model.model, runbook="requests-refused"))
    return sorted(notes, key=lambda note: _ORDER.index(note.severity))


def _of_model(model: ModelOverview) -> Iterator[Note]:
    for place, tier in enumerate(model.tiers):
        higher = [above.tier for above in model.tiers[place + 1 :] if above.workers and not above.paused]
        for severity, text, runbook in _of_tier(tier, higher):
            name = f"{model.model} {tier.tier}"
            yield Note(severity=severity, text=f"{name}: {text}", model=model.model, tier=tier.tier, runbook=runbook)


def _of_tier(tier: TierOverview, higher: list[str]) -> Iterator[tuple[Severity, str, str]]:
    if not tier.workers:
        waits = not higher and tier.depth > 0
        effect = (
            f"{higher[0]} serves its jobs, except those with a lower max_tier"
            if higher
            else f"its {tier.depth} jobs wait"
            if waits
            else "jobs that need it will wait"
        )
        severity = Severity.WARNING if higher else Severity.CRITICAL
        yield severity, f"no live worker; {effect}", "no-live-worker"
    if tier.shifted:
        serving = f"{higher[0] if higher else 'no tier'} serves those that may go up"
        yield Severity.WARNING, f"too many of its jobs break; {serving}", "tier-faults"
    if tier.breaker in (Breaker.OPEN, Breaker.HALF_OPEN):
        yield Severity.WARNING, f"the breaker of a worker is {tier.breaker}: its engine fails", "engine-trouble"
    if tier.workers_not_ready:
        workers = _counted(tier.workers_not_ready, "worker claims", "workers claim")
        yield Severity.WARNING, f"{workers} nothing: starting, draining or broken", "worker-not-ready"
    for lane in _LANES:
        age_s = tier.by_lane[lane].oldest_age_s or 0.0
        if age_s > _OLD_S:
            yield Severity.CRITICAL, f"the oldest job of the lane {lane} waits since {age_s:.0f} s", "oldest-job-waits"
    if tier.leases_lost:
        jobs = _counted(tier.leases_lost, "job", "jobs")
        yield Severity.WARNING, f"leases of {jobs} were lost in the last 10 minutes", "leases-lost"


def _of_all(overview: Overview, refused_change: str, limit: float) -> Iterator[Note]:
    yield from _of_pauses(overview)
    share = overview.redis.memory_share or 0.0
    if share > min(limit, _NEARLY_FULL):
        effect = "new jobs are refused" if share > limit else f"above {limit:.0%} new jobs are refused"
        severity = Severity.CRITICAL if share > limit else Severity.WARNING
        yield Note(severity=severity, text=f"Redis uses {share:.0%} of its memory; {effect}", runbook="redis")
    if overview.dead_letters.added:
        count, codes = overview.dead_letters.added, ", ".join(list(overview.dead_letters.by_error)[:3])
        latest = f" (latest: {codes})" if codes else ""  # they are read less often
        text = f"{_counted(count, 'dead letter', 'dead letters')} more in the last 10 minutes{latest}"
        yield Note(severity=Severity.WARNING, text=text, runbook="dead-letters")
    if refused_change:
        text = f"a change of the settings cannot be taken, what was before stays: {refused_change[:300]}"
        yield Note(severity=Severity.WARNING, text=text, runbook="release-refused")
    for key in overview.costs_today.budgets_used_up:
        text = f"the key {key} has used up its budget of the day; its requests are refused until midnight UTC"
        yield Note(severity=Severity.WARNING, text=text, runbook="budget-exceeded")


def _of_pauses(overview: Overview) -> Iterator[Note]:
    """Yield a note for each pause; that of everything is the worst."""
    by_hand = [pause for pause in overview.pauses if pause.operator != _RQ_SUSPEND]
    if overview.suspended and not any(pause.scope == EVERYTHING for pause in by_hand):
        text = "suspended: no job begins until `rq resume`"
        yield Note(severity=Severity.CRITICAL, text=text, runbook="oldest-job-waits")
    for pause in by_hand:
        is_all = pause.scope == EVERYTHING
        what = "everything: no job begins" if is_all else pause.scope
        reason = f" ({pause.reason})" if pause.reason else ""
        text = f"paused by {pause.operator or 'another program'}: {what}{reason}"
        severity = Severity.CRITICAL if is_all else Severity.WARNING
        yield Note(severity=severity, text=text, runbook="oldest-job-waits")


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"
