"""One prompt at both sides: who is asked first is drawn, and what computes losses does not know whose they are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from calibration.control.canary.canary_prompts import CanaryPrompt
from calibration.control.canary.spec import Measure, Spec
from calibration.errors import EngineFailedError
from calibration.evaluate.distributions import Distributions, agreement, divergence
from calibration.evaluate.engine import Asker
from calibration.evaluate.task_file import Task, is_right, is_same

_TOP = 20
_UNANSWERED = "the reference does not answer it"


class ModelTier(NamedTuple):
    """Where a prompt is answered."""

    model: str
    tier: str


class Pair(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one prompt. A side that failed has lost all there is to lose."""

    id: str
    places: tuple[str, str]  # of what serves now, and of the candidate
    candidate_first: bool = False
    losses: tuple[float, float] | None = None  # None: the prompt says nothing, see `skipped`
    failed: tuple[str, str] = ("", "")
    skipped: str = ""

    @property
    def is_asked(self) -> bool:
        """Whether both sides were asked."""
        return self.losses is not None and self.places[0] != self.places[1]

    @property
    def has_no_reference(self) -> bool:
        return self.skipped.startswith(_UNANSWERED)

    @property
    def difference(self) -> float:
        assert self.losses is not None  # noqa: S101  (asked only of pairs that count)
        return self.losses[1] - self.losses[0]


@dataclass(frozen=True, slots=True)
class _Reference:
    """What the reference says to a prompt."""

    along: list[int]  # the tokens of prompt and answer
    count: int  # of the answer
    predictions: Distributions | None
    text: str


class Comparison:
    """Compares two sides, each asked at one place."""

    def __init__(self, spec: Spec, askers: Mapping[ModelTier, Asker]) -> None:
        self._spec, self._askers = spec, askers
        self._reference = ModelTier(spec.model, spec.reference)

    async def pair(self, prompt: CanaryPrompt, places: tuple[ModelTier, ModelTier]) -> Pair:
        """Ask both sides.

        Raises:
            EngineFailedError: the reference cannot be asked.

        """
        names = tuple(f"{place.model}:{place.tier}" for place in places)
        made: dict[str, object] = {"id": prompt.id, "places": names}
        if self._spec.measure is Measure.TASK and prompt.check is None:
            return Pair(**made, skipped="it has no check")  # type: ignore[arg-type]
        if places[0] == places[1]:
            return Pair(**made, losses=(0.0, 0.0))  # type: ignore[arg-type]
        try:
            reference = await self._answer(prompt)
        except EngineFailedError as error:
            return Pair(**made, skipped=f"{_UNANSWERED}: {error}"[:300])  # type: ignore[arg-type]
        if not reference.count:
            return Pair(**made, skipped="the reference answers it with nothing")  # type: ignore[arg-type]
        order = [0, 1]
        random.Random(f"{self._spec.seed} {prompt.id}").shuffle(order)  # noqa: S311  (a draw that can be repeated)
        blind = await asyncio.gather(*(self._loss(prompt, reference, places[side]) for side in order))
        ends = dict(zip(order, blind, strict=True))
        return Pair(
            **made,  # type: ignore[arg-type]
            candidate_first=order[0] == 1,
            losses=(ends[0][0], ends[1][0]),
            failed=(ends[0][1], ends[1][1]),
        )

    async def _answer(self, prompt: CanaryPrompt) -> _Reference:
        asker, tokens = self._askers[self._reference], None
        if prompt.chat is not False:
            tokens = await asker.tokenize_chat(prompt.text)
        if tokens is None:
            tokens = await asker.tokenize(prompt.text, as_prompt=True)
        if (check := prompt.check) is not None and self._spec.measure is Measure.TASK:
            written = await asker.write(tokens, check.max_tokens, check.stop, 1)
            return _Reference(tokens, len(written.tokens), None, written.text)
        answer = await asker.answer(tokens, self._spec.answer_tokens)
        along = [*tokens, *answer]
        predictions = await asker.distributions(along, _TOP) if answer else None
        return _Reference(along, len(answer), predictions, "")

    async def _loss(self, prompt: CanaryPrompt, reference: _Reference, place: ModelTier) -> tuple[float, str]:
        """Return what a side loses, and how it failed, if it did."""
        asker = self._askers[place]
        try:
            if reference.predictions is None:
                assert prompt.check is not None  # noqa: S101  (else there are predictions)
                written = await asker.write(reference.along, prompt.check.max_tokens, prompt.check.stop, 1)
                return float(not _is_right(prompt.check, written.text, reference.text)), ""
            if place == self._reference:
                return 0.0, ""
            predictions = await asker.distributions(reference.along, _TOP)
            return await asyncio.to_thread(self._of, reference.predictions, predictions, reference.count), ""
        except EngineFailedError as error:
            return 1.0, str(error)[:300]

    def _of(self, reference: Distributions, side: Distributions, count: int) -> float:
        if self._spec.measure is Measure.FLIPS:
            return float(1 - agreement(reference, side)[-count:].mean())
        kl = float(np.mean(divergence(reference, side)[-count:]))
        return min(kl, self._spec.clip) / self._spec.clip


def _is_right(check: Task, answer: str, reference: str) -> bool:
    return is_same(check, answer, reference) if check.same else is_right(check, answer)
