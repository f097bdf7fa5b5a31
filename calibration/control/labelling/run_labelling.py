"""Label prompts: the reference answers, every tier is held against it. Read this first.

All that was measured is in the journal when it is used, so a run may end at any point. At a running stack the tiers of
a few prompts are asked side by side; local engines come one after another, each for all prompts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from calibration.artifacts.digest import text_digest
from calibration.control.asking.askers import Askers
from calibration.control.labelling.label_journal import Journal, ReferenceRecord, TierRecord, packed, unpacked
from calibration.control.labelling.label_losses import (
    AnswerLabel,
    TaskLabel,
    TextLabel,
    TierLabel,
    answer_label,
    own_label,
    repeated_share,
    split_rows,
    text_label,
)
from calibration.control.labelling.label_prompts import LabelPrompt
from calibration.errors import CalibrationError, EngineFailedError, InputError
from calibration.evaluate.distributions import Distributions
from calibration.evaluate.engine import AT_ONCE, Asker, Written
from calibration.evaluate.measures.greedy_answers import as_prompt
from calibration.sandbox.program import Sandbox
from calibration.terminal.progress import Advance

# Raise it when labels change so that those made before must be made anew.
_VERSION = 2
# Prompts that are measured before the rest is estimated, and those of which a stack's tiers are asked together.
PROBED, _TOGETHER = 8, 64
_SPELLED_CHARS, _SPELLED_TOKENS = 200, 8
# So many failures in a row are the engine's, not the prompts'.
_MAX_FAILURES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What labels depend on beside prompts and checkpoints."""

    answer_tokens: int = 64
    prompt_tokens: int = 512  # of a longer prompt its beginning is asked
    top: int = 20
    temperature: float = 1.0  # of answers; 0: the likeliest token at a time, which may loop
    chat: bool | None = None  # None: through the chat template where the reference has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the first prompts of a run have taken."""

    prompts: int
    seconds: float
    start_s: float  # of a local engine


@dataclass(slots=True, kw_only=True)
class Labeller:
    """Labels prompts with one reference and some tiers."""

    askers: Askers
    reference: str
    tiers: Sequence[str]
    options: LabelOptions
    journal: Journal
    sandbox: Sandbox | None = None
    advance: Advance = lambda done, total: None
    on_probe: Callable[[Probe], bool] = lambda probe: True  # whether to go on
    failures: dict[str, str] = field(default_factory=dict)  # prompt and tier -> why
    _made_by: dict[str, str] = field(init=False)
    _failing: set[str] = field(default_factory=set)  # prompts, one after another
    _done: int = 0
    _total: int = 0

    def __post_init__(self) -> None:
        self._made_by = {tier: self._digest(tier) for tier in {self.reference, *self.tiers}}

    def _digest(self, tier: str) -> str:
        made_by = {"version": _VERSION, "checkpoint": self.askers.checkpoint(tier), "engine": self.askers.engine(tier)}
        return text_digest(json.dumps(made_by | {"settings": asdict(self.options)}, sort_keys=True))[:16]

    def answered(self, prompt: LabelPrompt) -> ReferenceRecord | None:
        """Return what the reference has answered, where that was measured with these settings."""
        record = self.journal.references.get(prompt.key)
        is_present = record and (record.made_by, record.check) == (self._made_by[self.reference], prompt.conditions)
        return record if is_present else None

    def measured(self, prompt: LabelPrompt) -> dict[str, TierLabel]:
        """Return the labels of the tiers that were measured along the present answer."""
        answered = self.answered(prompt)
        if answered is None:
            return {}
        records = {tier: self.journal.tiers.get((prompt.key, tier)) for tier in self.tiers}
        return {
            tier: record.label
            for tier, record in records.items()
            if record
            and (record.made_by, record.along, record.check) == (self._made_by[tier], answered.along, answered.check)
        }

    def missing(self, prompt: LabelPrompt) -> list[str]:
        measured = self.measured(prompt)
        return [tier for tier in self.tiers if tier not in measured]

    async def run(self, prompts: Sequence[LabelPrompt]) -> None:
        """Measure what is missing.

        Raises:
            EngineFailedError: an engine does not start, or fails on one prompt after another.

        """
        waiting = [prompt for prompt in prompts if self.missing(prompt) or not self.answered(prompt)]
        if not waiting:
            return
        self._total = len(waiting) * (1 + len(self.tiers))
        first, rest = waiting[:PROBED], waiting[PROBED:]
        if not self.askers.side_by_side:
            await self._one_after_another(first, rest)
            return
        started_s = time.monotonic()
        await self._side_by_side(first)
        probe = Probe(prompts=len(first), seconds=time.monotonic() - started_s, start_s=0.0)
        if self.on_probe(probe):
            for begin in range(0, len(rest), _TOGETHER):
                await self._side_by_side(rest[begin : begin + _TOGETHER])

    async def _side_by_side(self, prompts: Sequence[LabelPrompt]) -> None:
        async with self.askers.asking(self.reference) as asker:
            await self._answer_all(asker, prompts)
        await _together(self._tier(tier, prompts) for tier in self.tiers)

    async def _one_after_another(self, first: Sequence[LabelPrompt], rest: Sequence[LabelPrompt]) -> None:
        begun_s = time.monotonic()
        if any(map(self._wants_answer, (*first, *rest))):
            async with self.askers.asking(self.reference) as asker:
                started_s = time.monotonic()
                await self._answer_all(asker, first)
                seconds = time.monotonic() - started_s
                if not self.on_probe(Probe(prompts=len(first), seconds=seconds, start_s=started_s - begun_s)):
                    return
                await self._answer_all(asker, rest)
        for tier in self.tiers:
            await self._tier(tier, [*first, *rest])

    def _wants_answer(self, prompt: LabelPrompt) -> bool:
        answered = self.answered(prompt)
        return answered is None or (bool(self.missing(prompt)) and not answered.rows)

    async def _answer_all(self, asker: Asker, prompts: Sequence[LabelPrompt]) -> None:
        wanting = [prompt for prompt in prompts if self._wants_answer(prompt)]
        self._count(len(prompts) - len(wanting))
        if not wanting:
            return
        options = self.options
        room = await asker.context_tokens() - options.answer_tokens - 1
        if room < 1:
            raise InputError(f"--answer-tokens must leave room for a prompt, got {options.answer_tokens}")
        limit = min(options.prompt_tokens, room)
        await self._each(self.reference, wanting, lambda prompt: self._answer(asker, prompt, limit))

    async def _tier(self, tier: str, prompts: Sequence[LabelPrompt]) -> None:
        wanting = [
            prompt for prompt in prompts if (at := self.answered(prompt)) and at.rows and tier in self.missing(prompt)
        ]
        self._count(len(prompts) - len(wanting))
        if not wanting:
            return
        async with self.askers.asking(tier) as asker:
            longest = max(wanting, key=lambda prompt: len(prompt.text))  # a short one may have no token to compare
            if not await _spells(asker, longest.text, self.journal.references[longest.key].prompt):
                raise EngineFailedError(f"tier {tier} reads text as other tokens than {self.reference}: not comparable")
            await self._each(tier, wanting, lambda prompt: self._measure(asker, tier, prompt))

    async def _answer(self, asker: Asker, prompt: LabelPrompt, limit: int) -> None:
        """Let the reference answer, and take its predictions along prompt and answer."""
        options = self.options
        asked = await as_prompt(asker, prompt.text, limit, chat=options.chat if prompt.chat is None else prompt.chat)
        written = await _write(asker, prompt, asked.prompt, options)
        tokens = [*asked.prompt, *written.tokens]
        rows = await asker.distributions(tokens, options.top)
        text = await self._task_answer(asker, prompt, asked.prompt, written.text)
        record = ReferenceRecord(
            id=prompt.key,
            made_by=self._made_by[self.reference],
            check=prompt.conditions,
            form=asked.form,
            along=text_digest(repr((asked.prompt, written.tokens)))[:16],
            tokens=len(written.tokens),
            own_answer=own_label(written.predictions),
            task=await self._task(prompt, text, None),
            prompt=asked.prompt,
            answer=written.tokens,
            text=text,
            rows=packed(rows),
        )
        self.journal.add(record)

    async def _measure(self, asker: Asker, tier: str, prompt: LabelPrompt) -> None:
        """Hold a tier against the reference."""
        answered = self.journal.references[prompt.key]
        rows = await asker.distributions([*answered.prompt, *answered.answer], self.options.top)
        of_text, of_answer = await asyncio.to_thread(_compare, unpacked(answered.rows), rows, answered.answer)
        label = TierLabel(answer=of_answer)
        if not prompt.turn:
            written = await _write(asker, prompt, answered.prompt, self.options)
            text = await self._task_answer(asker, prompt, answered.prompt, written.text)
            label = TierLabel(
                answer=of_answer,
                text=of_text,
                own_answer=own_label(written.predictions),
                task=await self._task(prompt, text, answered.text),
            )
        key = {"id": prompt.key, "tier": tier, "made_by": self._made_by[tier]}
        self.journal.add(TierRecord(**key, along=answered.along, check=answered.check, label=label))

    async def _task_answer(self, asker: Asker, prompt: LabelPrompt, tokens: Sequence[int], text: str) -> str:
        """Return the likeliest answer, which the prompt's check looks at: as far as it may go, up to a stop text."""
        if (check := prompt.check) is None:
            return ""
        limit = check.max_tokens or self.options.answer_tokens
        if self.options.temperature or limit != self.options.answer_tokens:
            text = (await asker.write(tokens, limit, check.stops, 1)).text
        return text[: min((at for stop in check.stops if (at := text.find(stop)) >= 0), default=len(text))]

    async def _task(self, prompt: LabelPrompt, answer: str, reference: str | None) -> TaskLabel | None:
        check = prompt.check
        if check is None:
            return None
        wrong = await asyncio.to_thread(check.is_wrong, answer, reference, self.sandbox)
        return TaskLabel(wrong=int(wrong), rule=check.rule)

    async def _each(
        self, tier: str, prompts: Iterable[LabelPrompt], measure: Callable[[LabelPrompt], Awaitable[None]]
    ) -> None:
        """Measure prompts side by side; one that fails is noted, and left for the next run."""
        free = asyncio.Semaphore(AT_ONCE)  # prompt by prompt: what is done is in the journal soon

        async def attempt(prompt: LabelPrompt) -> None:
            try:
                async with free:
                    await measure(prompt)
            except EngineFailedError as error:
                self.failures[f"{prompt.key} {tier}"] = str(error)
                self._failing.add(prompt.id)
                if len(self._failing) >= _MAX_FAILURES:
                    message = f"{tier}: {_MAX_FAILURES} prompts failed one after another, the last one: {error}"
                    raise EngineFailedError(message) from error
            else:
                self._failing.clear()
            self._count(1)

        await _together(attempt(prompt) for prompt in prompts)

    def _count(self, done: int) -> None:
        self._done += done
        self.advance(self._done, self._total)


async def _write(asker: Asker, prompt: LabelPrompt, tokens: Sequence[int], options: LabelOptions) -> Written:
    drawn = {"temperature": options.temperature, "seed": prompt.seed} if options.temperature else {}
    return await asker.write(tokens, options.answer_tokens, [], options.top, drawn)


async def _spells(asker: Asker, text: str, prompt: Sequence[int]) -> bool:
    """Return whether a tier reads a text as the tokens that this prompt has."""
    # At both ends the tokens depend on what stands beside them.
    spelled = (await asker.tokenize(text[:_SPELLED_CHARS]))[2:-2]
    # No more than a prompt has that was cut behind its beginning, within a template.
    spelled = spelled[: max(_SPELLED_TOKENS, len(prompt) // 4)]
    return any(list(prompt[at : at + len(spelled)]) == spelled for at in range(len(prompt)))


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; when one raises, cancel the others, and raise that."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(part)
    except* CalibrationError as errors:
        raise errors.exceptions[0] from None


def _compare(
    reference: Distributions, tier: Distributions, written: Sequence[int]
) -> tuple[TextLabel | None, AnswerLabel | None]:
    count = len(written)
    (prompt, answer), (tier_prompt, tier_answer) = split_rows(reference, count), split_rows(tier, count)
    of_answer = answer_label(answer, tier_answer, repeated_share(written)) if count else None
    return text_label(prompt, tier_prompt), of_answer
