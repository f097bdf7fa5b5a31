"""One pass of a shadow: look at what was captured, and label what was chosen as long as tiers idle and money lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from calibration.control.shadow.choosing import Choice, ask_what_became, choose, drop, prompt_of
from calibration.control.shadow.gated_requests import Purse
from calibration.control.shadow.idle_gate import EndOfPassError
from calibration.control.shadow.intake_view import IntakeView
from calibration.control.shadow.ledger import Usage
from calibration.control.shadow.progress_file import ShadowFolder, Waiting
from calibration.control.shadow.selection import CapturedPrompt, Reason
from calibration.control.shadow.shadow_figures import Outcome, outcome_of, summarize
from calibration.errors import CalibrationError, EngineFailedError
from calibration.terminal.progress import now_and_then

# Returns the label line of a prompt that this tier has served; by the reference itself, it asks nobody.
LabelPrompt = Callable[[CapturedPrompt, str], Awaitable[dict[str, Any]]]
# How often a prompt is tried, and how many failures in a row are an outage.
_TRIES, _FAILURES = 2, 5
# Of a label, until some were made.
_REQUESTS_OF_LABEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What labels are summed up by."""

    measure: str
    threshold: float


@dataclass(slots=True, kw_only=True)
class Shadow:
    """A shadow of one model; passes follow each other."""

    choice: Choice
    question: Question
    tiers: tuple[str, ...]  # lowest first; the last is the reference
    view: IntakeView
    purse: Purse
    folder: ShadowFolder
    label: LabelPrompt
    at_once: int
    say: Callable[[str], None]
    _done: set[str] = field(default_factory=set)
    _outcomes: list[Outcome] = field(default_factory=list)
    _without_measure: int = 0
    _failed: list[str] = field(default_factory=list)  # jobs, since the last label
    _open: int = 0
    _end: str = ""
    _error: CalibrationError | None = None

    def recall(self) -> None:
        """Take up the labels of earlier runs: they are done, whatever the progress says."""
        for label in self.folder.read_labels():
            self._note(label)
            self.purse.progress.waiting.pop(label["job"], None)

    async def run_pass(self) -> dict[str, Any]:
        """Run one pass, and return the figures of all labels so far.

        Raises:
            EngineFailedError: the stack is unreachable, or breaks on one prompt after the other.

        """
        progress = self.purse.progress
        self._end, self._error, before = "", None, len(self._done)
        try:
            choose(self.choice, progress, self._done)
            await ask_what_became(progress, self.view)
            ready = [job for job, waiting in progress.waiting.items() if waiting.is_settled]
            show, turns = now_and_then(self.say, "labels of this pass"), iter(ready)

            def advance() -> None:
                show(len(self._done) - before, len(ready))

            await asyncio.gather(*(self._work(turns, advance) for _ in range(self.at_once)))
            if not self._error:
                self._blame()
        finally:
            self._failed.clear()
            self.folder.save(progress)
        if self._error:
            raise self._error
        return self._figures(len(self._done) - before)

    async def _work(self, turns: Iterator[str], advance: Callable[[], None]) -> None:
        for job in turns:
            if self._end:
                return
            try:
                await self._take(job)
            except EndOfPassError as end:
                self._end = self._end or str(end)
            except CalibrationError as error:
                self._error, self._end = error, str(error)
            advance()

    async def _take(self, job: str) -> None:
        progress = self.purse.progress
        waiting = progress.waiting[job]
        prompt = prompt_of(self.choice, job, waiting)
        if waiting.served not in self.tiers or prompt is None:
            drop(progress, job, Reason.GONE if prompt is None else Reason.UNKNOWN_TIER)
            return
        self._open += 1
        try:
            self.purse.check(self._usage_of_label(), self._open)
            label = await self.label(prompt, waiting.served)
        except EngineFailedError:
            await self.view.load()  # an intake that does not answer is not this prompt's fault
            self._failed.append(job)
            if len(self._failed) >= _FAILURES:
                raise
        else:
            self._blame()
            line = label | self._of_traffic(job, waiting)
            self.folder.append(line)
            del progress.waiting[job]
            self._note(line)
        finally:
            self._open -= 1

    def _of_traffic(self, job: str, waiting: Waiting) -> dict[str, Any]:
        costs = {"served": waiting.cost, "reference": waiting.costs_elsewhere.get(self.tiers[-1])}
        known = {name: cost for name, cost in costs.items() if cost is not None}
        return {"served_at": waiting.at, "served_by": waiting.served, "job": job, "costs": known}

    def _blame(self) -> None:
        """Count the failures before a label, which are these prompts' own; many in a row are the stack's."""
        for job in self._failed:
            waiting = self.purse.progress.waiting[job]
            waiting.tries += 1
            if waiting.tries >= _TRIES:
                drop(self.purse.progress, job, Reason.FAILED)
        self._failed.clear()

    def _note(self, label: dict[str, Any]) -> None:
        self._done.add(label["job"])
        outcome = outcome_of(label, self.question.measure, self.question.threshold)
        if outcome:
            self._outcomes.append(outcome)
        else:
            self._without_measure += 1

    def _usage_of_label(self) -> Usage:
        """Return what a label takes, on average so far."""
        total, labels = self.purse.progress.ledger.total, sum(not outcome.is_reference for outcome in self._outcomes)
        if not labels:
            return Usage(requests=_REQUESTS_OF_LABEL)
        return Usage(-(-total.requests // labels), total.tokens // labels, total.cost / labels)

    def _figures(self, labelled: int) -> dict[str, Any]:
        progress, question = self.purse.progress, self.question
        waiting, usage, counts = len(progress.waiting), self._usage_of_label(), progress.counts
        return {
            "reference": self.tiers[-1],
            "measure": question.measure,
            "threshold": question.threshold,
            "prompts": {
                "seen": counts.seen,
                "chosen": counts.chosen,
                "labelled": len(self._done),
                "waiting": waiting,
                "skipped": dict(sorted(counts.skipped.items())),
                "capture_files_gone_unread": counts.files_gone,
                "without_measure": self._without_measure,
            },
            "pass": {"labelled": labelled, "ended": self._end or "all that was ready is labelled"},
            **summarize(self._outcomes),
            "usage": {
                "day": progress.ledger.day,
                "today": as_json(progress.ledger.today),
                "total": as_json(progress.ledger.total),
                "withdrawn_requests": counts.interrupted,
                "budget_per_day": {name: limit for name, limit in as_json(self.purse.budget).items() if limit},
            },
            "estimate": {"of_a_label": as_json(usage), "of_what_waits": as_json(usage * waiting)},
        }


def as_json(usage: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(usage)
