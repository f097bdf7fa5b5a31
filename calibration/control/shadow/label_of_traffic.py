"""The label of one prompt that a low tier served: how far that tier is from the reference along its answer.

As `calibrate label` takes it, so that labels of both can be read together; the tier's own answer is not written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bitladder.endpoints import Endpoint
from bitladder.policy_forms import FEATURE_NAMES
from bitladder.routing.features import score_prompt
from calibration.artifacts.digest import text_id
from calibration.control.labelling.label_losses import answer_label, split_rows, text_label
from calibration.control.shadow.selection import CapturedPrompt
from calibration.errors import EngineFailedError
from calibration.evaluate.distributions import Distributions
from calibration.evaluate.engine import Asker
from calibration.evaluate.measures.greedy_answers import PROMPT_TOKENS, as_prompt
from calibration.sample.kind import kind_and_language

# The likeliest tokens of a position, of both sides.
_TOP = 20
_NO_LOSS = {"answer": {"kl": 0.0, "flips": 0.0}}


@dataclass(frozen=True, slots=True)
class Labeller:
    """Labels captured prompts, one at a time; `askers`: of each tier, the last one the reference."""

    askers: dict[str, Asker]
    checkpoints: Callable[[], Awaitable[dict[str, str]]]  # as they are now
    answer_tokens: int
    temperature: float  # of answers, as in labels that a promise was made by
    _room: list[int] = field(default_factory=list)  # tokens of the reference's context, once they were asked for

    async def __call__(self, prompt: CapturedPrompt, tier: str) -> dict[str, Any]:
        """Return the label of a prompt that this tier has served; of the reference, nobody is asked.

        Raises:
            EngineFailedError: a tier refuses the prompt, or breaks on it.

        """
        reference = list(self.askers)[-1]
        losses, form = ({}, "") if tier == reference else await self._losses(prompt, tier, reference)
        checkpoints = await self.checkpoints()
        features = score_prompt(prompt.prompt.encode("utf-8", "replace"), Endpoint(prompt.endpoint), FEATURE_NAMES)
        return {
            "id": text_id(prompt.prompt),
            "source": prompt.tenant,
            "kind": kind_and_language(prompt.prompt, prompt.turns)[0],
            "features": {name: features[name] for name in FEATURE_NAMES},
            "reference": reference,
            "checkpoints": {name: checkpoints.get(name, "") for name in dict.fromkeys((tier, reference))},
            "tiers": {tier: losses} | {reference: _NO_LOSS},
        } | ({"form": form} if form else {})

    async def _losses(self, prompt: CapturedPrompt, tier: str, reference: str) -> tuple[dict[str, Any], str]:
        above, below = self.askers[reference], self.askers[tier]
        if not self._room:
            self._room.append(await above.context_tokens())
        limit = min(PROMPT_TOKENS, self._room[0] - self.answer_tokens - 1)
        asked = await as_prompt(above, prompt.prompt, limit, chat=None if prompt.is_chat else False)
        drawn = {"temperature": self.temperature, "seed": _seed(prompt.id)} if self.temperature else {}
        answer = await above.answer(asked.prompt, self.answer_tokens, drawn)
        if not asked.prompt or not answer:
            raise EngineFailedError(f"{reference} has answered nothing")
        tokens = [*asked.prompt, *answer]
        rows, tier_rows = await above.distributions(tokens, _TOP), await below.distributions(tokens, _TOP)
        return await asyncio.to_thread(_compare, rows, tier_rows, len(answer)), asked.form


def _seed(job_id: str) -> int:
    """Return a seed of the request's own: repeats of a prompt get other answers."""
    return int(text_id(job_id)[:8], 16)


def _compare(reference: Distributions, tier: Distributions, count: int) -> dict[str, Any]:
    (text, answer), (tier_text, tier_answer) = split_rows(reference, count), split_rows(tier, count)
    labels = {"answer": answer_label(answer, tier_answer), "text": text_label(text, tier_text)}
    return {name: msgspec.to_builtins(label) for name, label in labels.items() if label}
