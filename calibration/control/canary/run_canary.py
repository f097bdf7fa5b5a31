"""Run a canary: give the share, compare pair by pair, and promote, take back, or go on. Read this first.

Whatever ends it early or without proof takes the share back. All that it needs to go on is on disk: a run that was
killed goes on with the same call, and `stop` ends one that nobody runs any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bitladder.settings.load import Loaded
from calibration.control.asking.askers import StackOptions, running_stack
from calibration.control.canary.canary_prompts import CanaryPrompt, PromptSource
from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.comparing import Comparison, ModelTier, Pair
from calibration.control.canary.eprocess import Decision, decide
from calibration.control.canary.guards import TAG
from calibration.control.canary.pair_journal import CanaryState, HeldError, Journal, Phase, ask_to_stop, read_state
from calibration.control.canary.pair_placing import Placing, resolved
from calibration.control.canary.spec import Spec, promote
from calibration.control.proposals.author import time_now
from calibration.control.proposals.proposal import Change as ProposedChange
from calibration.control.proposals.proposal import Proposal, new_proposal
from calibration.errors import CalibrationError, InputError, ProposalRefusedError

# Looks at the candidate that must find something wrong one after another; and how long its last jobs may take.
_PROBLEMS, _DRAIN_S = 3, 30.0
# So many prompts in a row that the reference does not answer: it is not the prompts.
_MAX_UNANSWERED = 16
_PAUSE_S, _SAY_EVERY_S = 0.5, 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a canary is run; what it is stands in its Spec."""

    url: str
    api_key: str | None = None
    promotes: bool = False  # a candidate that is fine; else somebody does it later
    at_once: int = 4  # pairs
    poll_s: float = 10.0
    say: Callable[[str], None] = lambda text: None


def run_canary(spec: Spec, prompts: Path, folder: Path, loaded: Loaded, options: RunOptions) -> CanaryState:
    """Run a canary to its end, from where it was; `loaded`: the configuration of the stack.

    Raises:
        InputError: something does not fit, or the folder has another canary. Nothing was changed.

    """
    with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
        state, settings = journal.state(), steering.effective(loaded)
        if state is not None:
            asked = {"reference": spec.reference or state.spec.reference, "current_policy": state.spec.current_policy}
            if (state.spec, state.prompts) != (msgspec.structs.replace(spec, **asked), str(prompts)):
                raise InputError(f"--out {str(folder)!r} has another canary ({state.spec.what}): choose another folder")
            if state.phase != "running":
                return state
            options.say(f"going on after {len(journal.pairs)} pairs")
        whole = state.spec if state else resolved(spec, settings)
        placing = Placing(whole, settings)
        source = PromptSource(prompts, {whole.model, whole.served_by}, whole.seed)
        if state is None:
            state = _begin(whole, str(prompts), journal, steering)
        elif not journal.pairs and not steering.is_given(whole):  # killed before it was
            steering.give(whole)
        return asyncio.run(_Run(journal, steering, options, state).to_the_end(placing, source))


def promote_canary(folder: Path, options: RunOptions) -> CanaryState:
    """Promote a candidate that was found fine.

    Raises:
        InputError: none waits for it.
        ProposalRefusedError: somebody else has changed the share since.

    """
    with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
        state = journal.state()
        if state is None or state.phase != "awaits promotion":
            raise InputError(f"the canary of {str(folder)!r} is {state.phase if state else 'not started'}")
        return _end(journal, steering, state, "promoted", state.why, state.decision)


def stop_canary(folder: Path, options: RunOptions) -> CanaryState:
    """Take the share back, or have the process that runs the canary do it: then it is still running.

    Raises:
        InputError: none was started, or it is over.

    """
    state = read_state(folder)
    if state is None or state.is_over:
        raise InputError(f"the canary of {str(folder)!r} is {state.phase if state else 'not started'}")
    ask_to_stop(folder)
    try:
        with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
            return _end(journal, steering, state, "rolled back", "stopped by an operator", state.decision)
    except HeldError:
        return state


def proposal_of(state: CanaryState, steering: CanaryStack, evidence: dict[str, Any]) -> Proposal:
    """Return what people are asked for a candidate that is fine: to give it everything."""
    change, rows = promote(state.spec), steering.read()[1]
    was = {key: rows[key].value for key in change.values if key in rows}
    return new_proposal(
        "promote",
        f"{state.spec.what} is fine for {state.spec.model}: {state.why}"[:2000],
        at=time_now(),
        author="calibrate canary",
        evidence=evidence,
        change=ProposedChange(settings=change.values, was=was),
    )


def _begin(spec: Spec, prompts: str, journal: Journal, steering: CanaryStack) -> CanaryState:
    """Write what takes the share back, then give it."""
    if journal.is_stopped or journal.pairs:
        raise InputError(f"--out {str(journal.folder)!r} has parts of another canary: choose another folder")
    if steering.is_given(spec):
        raise InputError(f"{spec.what} has this share already: another canary runs, or one was left")
    state = journal.write(
        CanaryState(
            spec=spec,
            prompts=prompts,
            started_at=time.time(),
            policy_before=steering.policy_before(spec) if spec.policy else (None, False),
            counts_before=steering.counts(spec),
        )
    )
    try:
        steering.give(spec)
    except ProposalRefusedError as error:
        journal.discard()
        raise InputError(str(error)) from error
    return state


def _end(
    journal: Journal, steering: CanaryStack, state: CanaryState, phase: Phase, why: str, decision: str
) -> CanaryState:
    """Do what follows from the end, and write it."""
    if phase == "rolled back":
        steering.take_back(state.spec, state.policy_before, why)
        _drain(steering, state.spec)
    elif phase == "promoted":
        steering.promote(state.spec, why)
    touched = state.touched if state.touched is not None else touched_by(journal.pairs, steering, state)
    ended = {"phase": phase, "why": why, "decision": str(decision), "touched": touched}
    return journal.write(msgspec.structs.replace(state, decided_at=state.decided_at or time.time(), **ended))


def _drain(steering: CanaryStack, spec: Spec) -> None:
    """Wait a moment for the candidate's last jobs, so that they are counted."""
    end_s = time.monotonic() + _DRAIN_S
    while spec.candidate and steering.running(spec) and time.monotonic() < end_s:
        time.sleep(_PAUSE_S)


def touched_by(pairs: Sequence[Pair], steering: CanaryStack, state: CanaryState) -> int:
    """Return how many requests of others the candidate was given, at least."""
    measuring = sum(pair.is_asked for pair in pairs)
    (ended, drawn), (ended_before, drawn_before) = steering.counts(state.spec), state.counts_before
    return max(ended - ended_before - measuring, drawn - drawn_before if drawn >= drawn_before else drawn)


class _Run:
    """One process's part of a canary."""

    def __init__(self, journal: Journal, steering: CanaryStack, options: RunOptions, state: CanaryState) -> None:
        self._journal, self._steering, self._options, self._state = journal, steering, options, state
        self._spec = state.spec
        self._end_at = state.started_at + state.spec.hours * 3600
        self._spoken_s, self._unanswered = time.monotonic(), 0

    async def to_the_end(self, placing: Placing, source: PromptSource) -> CanaryState:
        if end := self._decided():  # killed before it had written so
            return await self._ended(*end)
        work = [asyncio.create_task(self._compare(placing, source)), asyncio.create_task(self._watch())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            phase, why, decision = next(task for task in work if task in done).result()
        except CalibrationError as error:
            phase, why, decision = "rolled back", f"it cannot be measured: {error}", Decision.UNDECIDED
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return await self._ended(phase, why, decision)

    async def _ended(self, phase: Phase, why: str, decision: Decision) -> CanaryState:
        self._options.say(f"{phase}: {why}")
        if phase == "left alone":
            return self._journal.write(msgspec.structs.replace(self._state, phase=phase, why=why))
        return await asyncio.to_thread(_end, self._journal, self._steering, self._state, phase, why, decision)

    async def _compare(self, placing: Placing, source: PromptSource) -> tuple[Phase, str, Decision]:
        async with self._comparison(placing.all_places) as comparison:
            while True:
                known = {pair.id for pair in self._journal.pairs}
                for batch in _batches(await asyncio.to_thread(source.new, known), self._options.at_once):
                    if end := self._decided():
                        return end
                    made = await asyncio.gather(*(comparison.pair(prompt, placing.places(prompt)) for prompt in batch))
                    self._journal.add(made)  # in the order of the prompts, whichever came first
                    self._note(made)
                if end := self._decided():
                    return end
                if not source.grows:
                    return "rolled back", f"not proven: the prompts are used up after {self._count}", Decision.UNDECIDED
                await asyncio.sleep(self._options.poll_s)

    @contextlib.asynccontextmanager
    async def _comparison(self, places: Sequence[ModelTier]) -> AsyncIterator[Comparison]:
        options = self._options
        async with contextlib.AsyncExitStack() as stack:
            askers = {}
            for model in dict.fromkeys(place.model for place in places):
                asked = StackOptions(
                    url=options.url, api_key=options.api_key, model=model, tag=TAG, at_once=2 * options.at_once
                )
                served = await stack.enter_async_context(running_stack(asked))
                for place in places:
                    if place.model == model:
                        askers[place] = await stack.enter_async_context(served.asking(place.tier))
            yield Comparison(self._spec, askers)

    def _decided(self) -> tuple[Phase, str, Decision] | None:
        """Return how the canary ends by what was measured; None: it goes on."""
        decision, count = decide(self._journal.differences, self._spec.margin, self._spec.alpha)
        if decision is Decision.WORSE:
            return "rolled back", f"worse by more than {self._spec.margin:g}, after {count} pairs", decision
        if decision is Decision.FINE:
            phase: Phase = "promoted" if self._options.promotes else "awaits promotion"
            return phase, f"worse by less than {self._spec.margin:g}, or better, after {count} pairs", decision
        if self._unanswered >= _MAX_UNANSWERED:
            why = self._journal.pairs[-1].skipped
            return "rolled back", f"it cannot be measured: {why}", decision
        return None

    async def _watch(self) -> tuple[Phase, str, Decision]:
        """Return how the canary ends by anything but its test."""
        problems = 0
        while True:
            if self._journal.is_stopped:
                return "rolled back", "stopped by an operator", Decision.UNDECIDED
            if time.time() >= self._end_at:
                why = f"not proven after {self._spec.hours:g} h and {self._count} pairs"
                return "rolled back", why, Decision.UNDECIDED
            problem = ""
            with contextlib.suppress(CalibrationError):  # no intake answers: that is not the candidate's fault
                if not await asyncio.to_thread(self._steering.is_given, self._spec):
                    return "left alone", "somebody else has changed its share", Decision.UNDECIDED
                problem = await asyncio.to_thread(self._problem)
            problems = problems + 1 if problem else 0
            if problems >= _PROBLEMS:
                return "rolled back", problem, Decision.UNDECIDED
            await asyncio.sleep(self._options.poll_s)

    def _problem(self) -> str:
        touched = touched_by(self._journal.pairs, self._steering, self._state)
        return self._steering.problem(self._spec, self._state.started_at, touched)

    @property
    def _count(self) -> int:
        return len(self._journal.differences)

    def _note(self, made: Sequence[Pair]) -> None:
        for pair in made:
            self._unanswered = self._unanswered + 1 if pair.has_no_reference else 0
        if time.monotonic() - self._spoken_s >= _SAY_EVERY_S:
            self._spoken_s = time.monotonic()
            differences = self._journal.differences
            mean = f", mean difference {differences.mean():+.4f}" if len(differences) else ""
            self._options.say(f"{self._count} pairs{mean}")


def _batches(items: Sequence[CanaryPrompt], size: int) -> list[Sequence[CanaryPrompt]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
