"""Looks at what was captured since the last pass, and chooses what is run again; all that is not, is counted."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from calibration.control.shadow.capture_reader import Line, forget_removed, line_at, read_on
from calibration.control.shadow.intake_view import IntakeView
from calibration.control.shadow.progress_file import Progress, Waiting
from calibration.control.shadow.selection import CapturedPrompt, Reason, is_chosen, read_captured, reason_against

# Prompts whose turn has not come. Of more, the oldest go: what is wanted is the traffic of today.
MAX_WAITING = 1000
# Nobody awaits an answer for longer; what the capture does not know by then, it never will.
_AWAITED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is chosen."""

    capture: Path
    share: float
    seed: int
    model: str
    without_tenants: frozenset[str] = frozenset()


def choose(choice: Choice, progress: Progress, done: Container[str]) -> None:
    """Read on in the capture. `done`: jobs that have a label."""
    progress.counts.files_gone += forget_removed(choice.capture, progress.marks)
    for line in read_on(choice.capture, progress.marks):
        prompt = read_captured(line.content)
        if prompt is None:
            progress.counts.skip(Reason.UNREADABLE)
        elif not prompt.served:
            _look_at(prompt, line, choice, progress, done)
        elif waiting := progress.waiting.get(prompt.id):
            waiting.served = prompt.served


async def ask_what_became(progress: Progress, view: IntakeView) -> None:
    """Ask which tier served each job whose turn may come, and what it cost; the intake knows it for a while."""
    for job, waiting in [(job, waiting) for job, waiting in progress.waiting.items() if not waiting.is_settled]:
        facts = await view.explain(job)
        if facts is None and not (waiting.served or _is_old(waiting.at)):
            continue
        if facts and not facts.has_ended:
            continue
        waiting.is_settled = True
        if facts and facts.was_served:
            waiting.served, waiting.cost = facts.tier or "", facts.cost
            waiting.costs_elsewhere = {tier: cost for tier, cost in facts.costs_elsewhere.items() if cost is not None}
        elif facts or not waiting.served:
            drop(progress, job, Reason.UNSERVED if facts else Reason.UNKNOWN_TIER)


def prompt_of(choice: Choice, job: str, waiting: Waiting) -> CapturedPrompt | None:
    """Return a chosen prompt from the capture; None: it is gone."""
    prompt = read_captured(line_at(choice.capture, waiting.file, waiting.start))
    return prompt if prompt and prompt.id == job else None


def drop(progress: Progress, job: str, reason: Reason) -> None:
    del progress.waiting[job]
    progress.counts.skip(reason)


def _look_at(prompt: CapturedPrompt, line: Line, choice: Choice, progress: Progress, done: Container[str]) -> None:
    progress.counts.seen += 1
    if not is_chosen(prompt.id, choice.seed, choice.share):
        return
    progress.counts.chosen += 1
    if prompt.id in progress.waiting or prompt.id in done:
        progress.counts.skip(Reason.REPEATED)
    elif reason := reason_against(prompt, choice.model, choice.without_tenants):
        progress.counts.skip(reason)
    else:
        progress.waiting[prompt.id] = Waiting(line.file, line.start, prompt.at)
        if len(progress.waiting) > MAX_WAITING:
            drop(progress, next(iter(progress.waiting)), Reason.BACKLOG)


def _is_old(at: str) -> bool:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds() > _AWAITED_S
    except (ValueError, TypeError):  # no time, or one without a zone
        return True
