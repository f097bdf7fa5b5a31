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

from bitladder.errors import BitladderError
from bitladder.settings.load import Loaded
from calibration.control.asking.askers import StackOptions, running_stack
from calibration.control.canary.canary_prompts import CanaryPrompt, PromptSource
from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.comparing import Comparison, ModelTier, Pair
from calibration.control.canary.ending import End, Retry, end_canary, touched_by
from calibration.control.canary.eprocess import Decision, decide
from calibration.control.canary.guards import TAG
from calibration.control.canary.pair_journal import CanaryState, HeldError, Journal, Phase, ask_to_stop, read_state
from calibration.control.canary.pair_placing import Placing, resolved
from calibration.control.canary.spec import Spec, key_of, promote
from calibration.control.proposals.author import time_now
from calibration.control.proposals.proposal import Change as ProposedChange
from calibration.control.proposals.proposal import Proposal, new_proposal
from calibration.errors import CalibrationError, InputError, ProposalRefusedError

# Looks at the candidate that must find something wrong one after another.
_PROBLEMS = 3
# So many prompts in a row that the reference does not answer: it is not the prompts.
_MAX_UNANSWERED = 16
_SAY_EVERY_S = 15.0
_STOPPED = "stopped by an operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a canary is run; what it is stands in its Spec."""

    url: str
    api_key: str | None = None
    promotes: bool = False  # a candidate that is fine; else somebody does it later
    at_once: int = 4  # pairs
    poll_s: float = 10.0
    say: Callable[[str], None] = lambda text: None

    @property
    def retry(self) -> Retry:
        return Retry(min(self.poll_s, 10.0), self.say)


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
            if state.ending:  # killed on the way
                return end_canary(journal, steering, state, End(state.ending, state.why, state.decision), options.retry)
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
        InputError: none waits for it, or was promoted before.
        ProposalRefusedError: somebody else has changed the share since.

    """
    with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
        state = journal.state()
        if state is not None and state.phase == "promoted":
            return state
        if state is None or state.phase != "awaits promotion":
            raise InputError(f"the canary of {str(folder)!r} is {state.phase if state else 'not started'}")
        return end_canary(journal, steering, state, End("promoted", state.why, state.decision), options.retry)


def stop_canary(folder: Path, options: RunOptions) -> CanaryState:
    """Take the share back, or have the process that runs the canary do it: then it is still running.

    Raises:
        InputError: none was started, or it is over.

    """
    state = _stoppable(folder)
    ask_to_stop(folder)
    try:
        with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
            state = _stoppable(folder)  # a process that ran it may just have ended it
            if steering.has_everything(state.spec):
                key = key_of(state.spec)
                raise InputError(f"{state.spec.what} has everything already: set or unset {key} (bitladder settings)")
            return end_canary(journal, steering, state, End("rolled back", _STOPPED, state.decision), options.retry)
    except HeldError:
        return state


def _stoppable(folder: Path) -> CanaryState:
    state = read_state(folder)
    if state is None or state.is_over:
        raise InputError(f"the canary of {str(folder)!r} is {state.phase if state else 'not started'}")
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
    if other := steering.has_share(spec):
        raise InputError(f"{other} has a share of {spec.model} already: another canary runs, or one was left")
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


class _Run:
    """One process's part of a canary."""

    def __init__(self, journal: Journal, steering: CanaryStack, options: RunOptions, state: CanaryState) -> None:
        self._journal, self._steering, self._options, self._state = journal, steering, options, state
        self._spec = state.spec
        self._end_at = state.started_at + state.spec.hours * 3600
        self._spoken_s, self._unanswered = time.monotonic(), 0

    async def to_the_end(self, placing: Placing, source: PromptSource) -> CanaryState:
        if end := self._decided():  # killed before it had written so
            return await self._ended(end)
        work = [asyncio.create_task(self._compare(placing, source)), asyncio.create_task(self._watch())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            end = next(task for task in work if task in done).result()
        except Exception as error:  # whatever it is: nobody compares, and the share must not stay
            what = str(error) if isinstance(error, CalibrationError | BitladderError) else repr(error)
            end = End("rolled back", f"it cannot be measured: {what}")
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return await self._ended(end)

    async def _ended(self, end: End) -> CanaryState:
        self._options.say(f"{end.phase}: {end.why}")
        retry = self._options.retry
        return await asyncio.to_thread(end_canary, self._journal, self._steering, self._state, end, retry)

    async def _compare(self, placing: Placing, source: PromptSource) -> End:
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
                    return End("rolled back", f"not proven: the prompts are used up after {self._count}")
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

    def _decided(self) -> End | None:
        """Return how the canary ends by what was measured; None: it goes on."""
        decision, count = decide(self._journal.differences, self._spec.margin, self._spec.alpha)
        if decision is Decision.WORSE:
            return End("rolled back", f"worse by more than {self._spec.margin:g}, after {count} pairs", decision)
        if decision is Decision.FINE:
            phase: Phase = "promoted" if self._options.promotes else "awaits promotion"
            return End(phase, f"worse by less than {self._spec.margin:g}, or better, after {count} pairs", decision)
        if self._unanswered >= _MAX_UNANSWERED:
            why = self._journal.pairs[-1].skipped
            return End("rolled back", f"it cannot be measured: {why}", decision)
        return None

    async def _watch(self) -> End:
        """Return how the canary ends by anything but its test."""
        problems = 0
        while True:
            if self._journal.is_stopped:
                return End("rolled back", _STOPPED)
            if time.time() >= self._end_at:
                why = f"not proven after {self._spec.hours:g} h and {self._count} pairs"
                return End("rolled back", why)
            problem = ""
            with contextlib.suppress(CalibrationError):  # no intake answers: that is not the candidate's fault
                if not await asyncio.to_thread(self._steering.is_given, self._spec):
                    return End("left alone", "somebody else has changed its share")
                problem = await asyncio.to_thread(self._problem)
            problems = problems + 1 if problem else 0
            if problems >= _PROBLEMS:
                return End("rolled back", problem)
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
