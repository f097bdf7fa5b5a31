"""One process's part of a canary: pairs are compared, and the candidate is watched, until something ends it.

A candidate that is found fine goes on being watched, and compared now and then, until somebody promotes it: its share
stays given. While this runs it prolongs the share; where it does no more, the share ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from bitladder.errors import BitladderError
from calibration.control.asking.askers import StackOptions, running_stack
from calibration.control.canary.canary_prompts import CanaryPrompt, PromptSource
from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.comparing import Comparison, ModelTier, Pair
from calibration.control.canary.ending import End, Retry, end_canary, touched_by
from calibration.control.canary.eprocess import Decision, decide, turned_worse
from calibration.control.canary.guards import TAG
from calibration.control.canary.pair_journal import CanaryState, Journal, Phase
from calibration.control.canary.pair_placing import Placing
from calibration.control.canary.spec import is_given, is_promoted
from calibration.errors import CalibrationError, ProposalRefusedError

STOPPED = "stopped by an operator"
# Looks at the candidate that must find something wrong one after another.
_PROBLEMS = 3
# Requests that failed count among those of the last minutes: behind a good day the first bad hour would be few.
_WINDOW_S = 600.0
# The share is prolonged when so much of its time is left.
_LEFT = 0.25
# So many prompts in a row that the reference does not answer: it is not the prompts.
_MAX_UNANSWERED = 16
_SAY_EVERY_S = 15.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a canary is run; what it is stands in its Spec."""

    url: str
    api_key: str | None = None
    promotes: bool = False  # a candidate that is fine; else somebody does it later
    watches: bool = True  # one that is fine, until somebody has done it
    at_once: int = 4  # pairs
    poll_s: float = 10.0
    lease_s: float = 1200.0  # of the share
    say: Callable[[str], None] = lambda text: None
    fine: Callable[[CanaryState], None] = lambda state: None  # what follows where it waits for its promotion

    @property
    def retry(self) -> Retry:
        return Retry(min(self.poll_s, 10.0), self.say)


class Trial:
    """The comparison and the watch."""

    def __init__(self, journal: Journal, steering: CanaryStack, options: RunOptions, state: CanaryState) -> None:
        self._journal, self._steering, self._options, self._state = journal, steering, options, state
        self._spec = state.spec
        self._spoken_s, self._unanswered = time.monotonic(), 0
        self._steered: asyncio.Future[Any]
        self._looks = deque([(state.started_at, 0)])  # when, and how many requests it had been given by then

    async def to_the_end(self, placing: Placing, source: PromptSource) -> CanaryState:
        if self._state.phase == "running":
            end = self._decided() or await self._first_of(self._compare(placing, source))
            self._state = await self._ended(end)
        if self._state.phase != "awaits promotion":
            return self._state
        self._options.fine(self._state)
        if not self._options.watches:
            return self._state
        return await self._ended(await self._first_of(self._compare_on(placing, source)))

    async def _first_of(self, comparing: Coroutine[Any, Any, End]) -> End:
        self._steered = asyncio.ensure_future(asyncio.sleep(0))
        work = [asyncio.create_task(comparing), asyncio.create_task(self._watch())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in work if task in done).result()
        except Exception as error:  # whatever it is: nobody compares, and the share must not stay
            what = str(error) if isinstance(error, CalibrationError | BitladderError) else repr(error)
            return End("rolled back", f"it cannot be measured: {what}", self._state.decision)
        finally:
            for task in work:
                task.cancel()
            # What steers ends first: a share that is prolonged behind the end would stay.
            await asyncio.gather(*work, self._steered, return_exceptions=True)

    async def _ended(self, end: End) -> CanaryState:
        self._options.say(f"{end.phase}: {end.why}")
        journal, steering, state, retry = self._journal, self._steering, self._state, self._options.retry
        try:
            return await asyncio.to_thread(end_canary, journal, steering, state, end, retry)
        except ProposalRefusedError as error:  # nothing is done by force to what others have set
            return await asyncio.to_thread(end_canary, journal, steering, state, End("left alone", f"{error}"), retry)

    async def _compare(self, placing: Placing, source: PromptSource) -> End:
        async with self._comparison(placing.all_places) as comparison:
            while True:
                known = {pair.id for pair in self._journal.pairs}
                for batch in _batches(await asyncio.to_thread(source.new, known), self._options.at_once):
                    if end := self._decided():
                        return end
                    await self._pairs(comparison, placing, batch)
                if end := self._decided():
                    return end
                if not source.grows:
                    return End("rolled back", f"not proven: the prompts are used up after {self._count}")
                await asyncio.sleep(self._options.poll_s)

    async def _compare_on(self, placing: Placing, source: PromptSource) -> End:
        """Compare some at each look: new prompts, or, where there are none, earlier ones that are drawn by chance."""
        chance = random.Random(f"{self._spec.seed} {self._count}")  # noqa: S311  (a draw that can be repeated)
        at_once = self._options.at_once
        async with self._comparison(placing.all_places) as comparison:
            while True:
                known = {pair.id for pair in self._journal.pairs}
                batch = (await asyncio.to_thread(source.new, known))[:at_once]
                if not batch and (earlier := await asyncio.to_thread(source.new, ())):
                    batch = chance.choices(earlier, k=at_once)
                await self._pairs(comparison, placing, batch)
                if end := self._turned():
                    return end
                await asyncio.sleep(self._options.poll_s)

    async def _pairs(self, comparison: Comparison, placing: Placing, batch: Sequence[CanaryPrompt]) -> None:
        made = await asyncio.gather(*(comparison.pair(prompt, placing.places(prompt)) for prompt in batch))
        self._journal.add(made)  # in the order of the prompts, whichever came first
        self._note(made)

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
        return self._mute()

    def _turned(self) -> End | None:
        """Return how the canary ends by what was measured since it was found fine."""
        fine_after = self._state.fine_after or 0
        late = self._journal.differences[fine_after:]
        if count := turned_worse(late, self._spec.margin, self._spec.alpha):
            why = f"worse by more than {self._spec.margin:g}, {count} pairs after it was found fine"
            return End("rolled back", why, Decision.WORSE)
        return self._mute()

    def _mute(self) -> End | None:
        if self._unanswered < _MAX_UNANSWERED:
            return None
        return End("rolled back", f"it cannot be measured: {self._journal.pairs[-1].skipped}", self._state.decision)

    async def _watch(self) -> End:
        """Return how the canary ends by anything but its test."""
        problems, decision = 0, self._state.decision
        while True:
            if end := self._ordered():
                return end
            try:
                if end := await self._steer(self._hold_share):
                    return end
                problem = await self._steer(self._problem)
            except ProposalRefusedError as error:  # nobody would be sent to the candidate any more
                problem = f"its share cannot be prolonged: {error}"
            except CalibrationError:  # no intake answers: that is not the candidate's fault
                problem = ""
            problems = problems + 1 if problem else 0
            if problems >= _PROBLEMS:
                return End("rolled back", problem, decision)
            await asyncio.sleep(self._options.poll_s)

    async def _steer(self, call: Callable[[], _Result]) -> _Result:
        self._steered = steered = asyncio.ensure_future(asyncio.to_thread(call))
        return await asyncio.shield(steered)

    def _ordered(self) -> End | None:
        """Return how the canary ends by an order, or because its time is over."""
        state, hours = self._state, self._spec.hours
        is_fine = state.phase == "awaits promotion"
        if self._journal.order == "stop":
            return End("rolled back", STOPPED, state.decision)
        if self._journal.order == "promote" and is_fine:
            return End("promoted", state.why, state.decision)
        if time.time() < (state.decided_at or state.started_at) + hours * 3600:
            return None
        if is_fine:
            return End(
                "rolled back", f"nobody has promoted it in the {hours:g} h after it was found fine", state.decision
            )
        return End("rolled back", f"not proven after {hours:g} h and {self._count} pairs")

    def _hold_share(self) -> End | None:
        """Prolong the share; return how the canary ends where somebody has changed it."""
        state, spec, lease_s = self._state, self._spec, self._options.lease_s
        value = self._steering.value(spec)
        if is_given(spec, value):
            if state.leased_until - time.time() > _LEFT * lease_s:
                return None
        elif state.phase == "awaits promotion" and is_promoted(spec, value):
            return End("promoted", state.why, state.decision)
        elif not state.lapsed(value):
            return End("left alone", "somebody else has changed its share", state.decision)
        self._state = give_share(self._journal, self._steering, state, lease_s)
        return None

    def _problem(self) -> str:
        now, touched = time.time(), touched_by(self._journal.pairs, self._steering, self._state)
        self._looks.append((now, touched))
        while self._looks[1][0] <= now - _WINDOW_S:
            self._looks.popleft()
        since, before = self._looks[0]
        return self._steering.problem(self._spec, since, touched - before)

    @property
    def _count(self) -> int:
        return len(self._journal.differences)

    def _note(self, made: Sequence[Pair]) -> None:
        for pair in made:
            self._unanswered = self._unanswered + 1 if pair.has_no_reference else 0
        if self._state.phase == "running" and time.monotonic() - self._spoken_s >= _SAY_EVERY_S:
            self._spoken_s = time.monotonic()
            differences = self._journal.differences
            mean = f", mean difference {differences.mean():+.4f}" if len(differences) else ""
            self._options.say(f"{self._count} pairs{mean}")


def give_share(journal: Journal, steering: CanaryStack, state: CanaryState, lease_s: float) -> CanaryState:
    """Give the share, or prolong it, and note until when it has it."""
    begun_at = time.time()
    steering.give(state.spec, lease_s)
    return journal.write(msgspec.structs.replace(state, leased_until=begun_at + lease_s))


def _batches(items: Sequence[CanaryPrompt], size: int) -> list[Sequence[CanaryPrompt]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
