"""How far a tier is from the reference along the reference's own answers: it is these that users read.

The reference answers each prompt, the most likely token at a time. Every checkpoint, the reference too, is then asked
for its predictions along that answer. As both read the same tokens until the first one on which they differ, that one
is where the tier's own answer would part from the reference's: no second answer is needed to know it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from calibration.artifacts.digest import text_digest, text_id, texts_digest
from calibration.artifacts.evaluation_report import Comparison
from calibration.artifacts.prompt_losses import AnswerLoss
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.distributions import Distributions, agreement, divergence, from_arrays, to_arrays
from calibration.evaluate.engine import Asker
from calibration.evaluate.figures import TierFigures, bootstrap_estimate, mean_difference
from calibration.evaluate.heldout import HeldoutText, by_kind
from calibration.evaluate.measures.measure import EvaluationOptions, Prepared, gather
from calibration.terminal.progress import Advance

# Of a longer prompt the beginning is asked, so that a tier with a short context can be measured, too.
PROMPT_TOKENS = 512
# How a text begins that was written in a chat template already.
_RENDERED = ("<|", "<s>", "[INST]")


def prepare(options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
    asked = {kind: kind_texts[: options.answers] for kind, kind_texts in by_kind(texts).items() if options.answers}
    how = (options.answer_tokens, options.top, options.chat)
    return Prepared(measures=[Answers(kind, kind_texts, *how) for kind, kind_texts in asked.items()])


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt with the reference's answer."""

    id: str  # of the text
    form: str  # chat: in the chat template; text: as it is
    prompt: list[int]
    answer: list[int]


async def as_prompt(asker: Asker, text: str, limit: int, *, chat: bool | None) -> Exchange:
    """Return a text as a prompt of at most so many tokens, through the chat template if that is wanted.

    Raises:
        InputError: it is wanted, and there is none.

    """
    as_is = chat is False or text.startswith(_RENDERED)
    beginning = text
    while True:
        tokens = None if as_is else await asker.tokenize_chat(beginning)
        if tokens is None and chat and not as_is:
            raise InputError("--chat: the reference has no chat template, expected --no-chat")
        form = "text" if tokens is None else "chat"
        if tokens is None:
            tokens = await asker.tokenize(beginning, as_prompt=True)
        if len(tokens) <= limit or not beginning:
            return Exchange(id=text_id(text), form=form, prompt=tokens, answer=[])
        beginning = beginning[: len(beginning) * limit // len(tokens)]


@dataclass(frozen=True, slots=True)
class Answered:
    """The predictions of a checkpoint along the reference's answers."""

    exchanges: tuple[Exchange, ...]
    predictions: tuple[Distributions, ...]  # a row for each token of the answer


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to held-out texts of one kind."""

    kind: str
    texts: Sequence[str]
    max_tokens: int
    top: int
    chat: bool | None
    exchanges: tuple[Exchange, ...] = ()  # of the reference; () for the reference itself
    field: str = "answer"

    @property
    def name(self) -> str:
        return f"answers.{self.kind}"

    @property
    def inputs(self) -> dict[str, Any]:
        shape = {"tokens": self.max_tokens, "top": self.top, "chat": self.chat, "prompt": PROMPT_TOKENS}
        followed = {"along": text_digest(repr(self.exchanges))} if self.exchanges else {}
        return shape | {"texts": texts_digest(self.texts)} | followed

    def following(self, reference: Answered) -> Answers:
        return replace(self, exchanges=reference.exchanges)

    async def take(self, asker: Asker, advance: Advance) -> Answered:
        exchanges = self.exchanges or await self._answer(asker)
        requests = [asker.distributions([*item.prompt, *item.answer], self.top) for item in exchanges]
        predictions = await gather(requests, advance)
        pairs = zip(exchanges, predictions, strict=True)
        return Answered(exchanges, tuple(_last(rows, len(item.answer)) for item, rows in pairs))

    async def _answer(self, asker: Asker) -> tuple[Exchange, ...]:
        """Let the reference answer every text once."""
        # One token more is asked for with the predictions.
        room = await asker.context_tokens() - self.max_tokens - 1
        if room < 1:
            raise InputError(
                f"--answer-tokens must leave room for a prompt, got {self.max_tokens}, {-room + 1} too many"
            )
        limit = min(PROMPT_TOKENS, room)
        prompts = [await as_prompt(asker, text, limit, chat=self.chat) for text in dict.fromkeys(self.texts)]
        answers = await gather([asker.answer(prompt.prompt, self.max_tokens) for prompt in prompts])
        answered = [
            msgspec.structs.replace(prompt, answer=answer)
            for prompt, answer in zip(prompts, answers, strict=True)
            if prompt.prompt and answer
        ]
        if not answered:
            raise EngineFailedError(f"the engine answered none of {len(prompts)} texts of kind {self.kind!r}")
        return tuple(answered)

    def encode(self, result: Answered) -> bytes:
        file = io.BytesIO()
        exchanges = np.frombuffer(msgspec.json.encode(result.exchanges), np.uint8)
        np.savez_compressed(file, allow_pickle=False, exchanges=exchanges, **to_arrays(result.predictions))
        return file.getvalue()

    def decode(self, content: bytes) -> Answered:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            exchanges = msgspec.json.decode(file["exchanges"].tobytes(), type=tuple[Exchange, ...])
            return Answered(exchanges, from_arrays(file))

    def figures(self, result: Answered, reference: Answered | None, candidate: Candidate) -> TierFigures:
        return TierFigures() if reference is None else answer_figures(self.kind, result, reference)

    def compare(self, result: Answered, other: Answered, reference: Answered | None) -> dict[str, Comparison]:
        """Return how two checkpoints differ along the same answers; nothing without the reference, whose they are."""
        return {} if reference is None else _compare_drift(self.kind, result, other, reference)

    def per_prompt(self, result: Answered, reference: Answered | None) -> dict[str, AnswerLoss]:
        asked = {item.id: AnswerLoss(form=item.form, tokens=len(item.answer)) for item in result.exchanges}
        if reference is None:
            return asked
        compared = [_compare_answer(*pair) for pair in zip(reference.predictions, result.predictions, strict=True)]
        return {
            item.id: msgspec.structs.replace(
                asked[item.id], kl=apart / tokens, flips=1 - same / tokens, prefix=int(prefix)
            )
            for item, (tokens, apart, same, prefix) in zip(result.exchanges, compared, strict=True)
        }


def answer_figures(kind: str, tier: Answered, reference: Answered) -> TierFigures:
    """Return divergence, agreement and what both would say alike until they part; whole answers are resampled."""
    pairs = zip(reference.predictions, tier.predictions, strict=True)
    rows = np.array([_compare_answer(*pair) for pair in pairs])
    count = int(rows[:, 0].sum())
    kl = bootstrap_estimate(rows, lambda tokens, apart, same, prefix: apart / tokens, count)
    alike = {
        f"answer_top1.{kind}": bootstrap_estimate(rows, lambda tokens, apart, same, prefix: same / tokens, count),
        f"answer_prefix.{kind}": bootstrap_estimate(rows, lambda tokens, apart, same, prefix: prefix / tokens, count),
    }
    return TierFigures({f"answer_kl.{kind}": kl} | alike, alike)


def _compare_drift(kind: str, tier: Answered, other: Answered, reference: Answered) -> dict[str, Comparison]:
    """Return how much farther from the reference's answers a tier is than another one, answer by answer."""
    trios = zip(reference.predictions, tier.predictions, other.predictions, strict=True)
    rows = np.array([(_compare_answer(base, new), _compare_answer(base, old)) for base, new, old in trios])
    tokens, more = rows[:, 0, 0], rows[:, 0] - rows[:, 1]
    metrics = ("answer_kl", "answer_top1", "answer_prefix")
    return {f"{metric}.{kind}": mean_difference(more[:, at], tokens) for at, metric in enumerate(metrics, start=1)}


def _compare_answer(reference: Distributions, tier: Distributions) -> tuple[float, ...]:
    """Return tokens, divergence, tokens on which both agree, and those before the first one on which they do not."""
    same = agreement(reference, tier)
    prefix = len(same) if same.all() else int(same.argmin())
    return len(same), float(divergence(reference, tier).sum()), float(same.sum()), prefix


def _last(rows: Distributions, count: int) -> Distributions:
    return Distributions(rows.actual[-count:], rows.ids[-count:], rows.logprobs[-count:])
