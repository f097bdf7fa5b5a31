"""How likely held-out text is, and how far the predictions are from the reference's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from calibration.artifacts.digest import text_digest, text_id, texts_digest
from calibration.artifacts.evaluation_report import Comparison
from calibration.artifacts.prompt_losses import TextLoss, WorstPassage
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.distributions import Distributions, agreement, divergence, from_arrays, to_arrays
from calibration.evaluate.engine import Asker
from calibration.evaluate.figures import TierFigures, bootstrap_estimate, mean_difference
from calibration.evaluate.heldout import HeldoutText, by_kind
from calibration.evaluate.measures.measure import EvaluationOptions, Prepared, gather
from calibration.statistics import Floats
from calibration.terminal.progress import Advance
from calibration.texts.passages import PASSAGE_TOKENS, cut_text

# Of a passage, for people.
_SHOWN_CHARS = 200
# Above it, e to the exponent is no float.
_MAX_NATS = 600.0


def prepare(options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
    kinds = by_kind(texts)
    return Prepared(measures=[Likelihood(kind, kinds[kind], options.tokens, options.top) for kind in kinds])


class PassagePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where a passage stands."""

    id: str  # of the text
    start: int  # its first token there
    begins: str


@dataclass(frozen=True, slots=True)
class Passages:
    """The predictions for all passages of a kind."""

    tokens: str  # digest of the token ids: two checkpoints must have read the same
    predictions: tuple[Distributions, ...]
    positions: tuple[PassagePosition, ...] = ()  # where each passage stands


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The predictions for held-out text of one kind."""

    kind: str
    texts: Sequence[str]
    max_tokens: int
    top: int
    field: str = "text"

    @property
    def name(self) -> str:
        return f"text.{self.kind}"

    @property
    def inputs(self) -> dict[str, Any]:
        shape = {"budget": self.max_tokens, "top": self.top, "passage": PASSAGE_TOKENS}
        return shape | {"texts": texts_digest(self.texts)}

    async def take(self, asker: Asker, advance: Advance) -> Passages:
        positioned = await self._passages(asker)
        if not positioned:
            raise InputError(f"held-out text of kind {self.kind!r} is too short: no text of it has two tokens")
        passages = [tokens for _, tokens in positioned]
        predictions = await gather([asker.distributions(tokens, self.top) for tokens in passages], advance)
        return Passages(text_digest(repr(passages)), tuple(predictions), tuple(position for position, _ in positioned))

    async def _passages(self, asker: Asker) -> list[tuple[PassagePosition, list[int]]]:
        passages: list[tuple[PassagePosition, list[int]]] = []
        tokens_left = self.max_tokens
        for text in self.texts:
            text_passages = cut_text(await asker.tokenize(text), tokens_left)
            starts = range(0, len(text_passages) * PASSAGE_TOKENS, PASSAGE_TOKENS)
            for start, passage in zip(starts, text_passages, strict=True):
                begins = await asker.detokenize(passage) if start else text
                passages.append((PassagePosition(id=text_id(text), start=start, begins=begins[:_SHOWN_CHARS]), passage))
            tokens_left -= sum(map(len, text_passages))
            if tokens_left <= 1:
                break
        return passages

    def encode(self, result: Passages) -> bytes:
        file = io.BytesIO()
        positions = np.frombuffer(msgspec.json.encode(result.positions), np.uint8)
        arrays = to_arrays(result.predictions)
        np.savez_compressed(file, allow_pickle=False, tokens=np.array(result.tokens), positions=positions, **arrays)
        return file.getvalue()

    def decode(self, content: bytes) -> Passages:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            positions = msgspec.json.decode(file["positions"].tobytes(), type=tuple[PassagePosition, ...])
            return Passages(str(file["tokens"]), from_arrays(file), positions)

    def figures(self, result: Passages, reference: Passages | None, candidate: Candidate) -> TierFigures:
        if reference is not None and reference.tokens != result.tokens:
            raise EngineFailedError("its tokenizer is not the reference's, so they cannot be compared")
        return text_figures(self.kind, result, reference)

    def per_prompt(self, result: Passages, reference: Passages | None) -> dict[str, TextLoss]:
        pairs = zip((reference or result).predictions, result.predictions, strict=True)
        rows = [_compare_passage(*pair) for pair in pairs] if result.positions else []
        of_text: dict[str, list[tuple[PassagePosition, tuple[float, ...]]]] = {}
        for position, row in zip(result.positions, rows, strict=True):
            of_text.setdefault(position.id, []).append((position, row))
        return {
            name: _text_loss(*zip(*positioned, strict=True), compared=reference is not None)
            for name, positioned in of_text.items()
        }

    def compare(self, result: Passages, other: Passages, reference: Passages | None) -> dict[str, Comparison]:
        """Return how two checkpoints differ on the same passages, in their divergence from the reference too."""
        if result.tokens != other.tokens:
            raise EngineFailedError("its tokenizer is not that of what is served, so they cannot be compared")
        compared = text_figures(self.kind, result, other).compared
        return compared | (_compare_drift(self.kind, result, other, reference) if reference else {})


def _text_loss(positions: Sequence[PassagePosition], rows: Sequence[tuple[float, ...]], *, compared: bool) -> TextLoss:
    """Return the figures of one text from those of its passages."""
    tokens, loss, _, apart, same = (sum(column) for column in zip(*rows, strict=True))
    if not compared:
        return TextLoss(tokens=int(tokens), nats=loss / tokens)
    position, row = max(zip(positions, rows, strict=True), key=lambda item: item[1][3] / item[1][0])
    worst = WorstPassage(start=position.start, tokens=int(row[0]), kl=row[3] / row[0], begins=position.begins)
    return TextLoss(tokens=int(tokens), nats=loss / tokens, kl=apart / tokens, flips=1 - same / tokens, worst=worst)


def _compare_drift(kind: str, tier: Passages, other: Passages, reference: Passages) -> dict[str, Comparison]:
    """Return how much farther from the reference a tier is than another one, passage by passage."""
    trios = zip(reference.predictions, tier.predictions, other.predictions, strict=True)
    rows = np.array([(*_compare_passage(base, new), *_compare_passage(base, old)) for base, new, old in trios])
    tokens, apart, same = rows[:, 0], rows[:, 3] - rows[:, 8], rows[:, 4] - rows[:, 9]
    return {f"kl_mean.{kind}": mean_difference(apart, tokens), f"top1.{kind}": mean_difference(same, tokens)}


def text_figures(kind: str, tier: Passages, reference: Passages | None) -> TierFigures:
    """Return perplexity; and against the reference, mean divergence, agreement, and the share of perplexity kept."""
    name, count = f"perplexity.{kind}", sum(len(passage.actual) for passage in tier.predictions)
    losses = np.array([(len(passage.actual), _loss(passage)) for passage in tier.predictions])
    metrics = {name: bootstrap_estimate(losses, lambda tokens, loss: _exp(loss / tokens), count)}
    if reference is None:
        return TierFigures(metrics)
    pairs = zip(reference.predictions, tier.predictions, strict=True)
    rows = np.array([_compare_passage(*pair) for pair in pairs])
    top1 = bootstrap_estimate(rows, lambda tokens, loss, base, apart, same: same / tokens, count)
    kl = bootstrap_estimate(rows, lambda tokens, loss, base, apart, same: apart / tokens, count)
    kept = bootstrap_estimate(rows, lambda tokens, loss, base, apart, same: _exp((base - loss) / tokens), count)
    difference = bootstrap_estimate(
        rows, lambda tokens, loss, base, apart, same: _exp(loss / tokens) - _exp(base / tokens), count
    )
    metrics |= {f"kl_mean.{kind}": replace(kl, bound="lower"), f"top1.{kind}": top1}
    comparison = Comparison(difference=difference.value, low=difference.low, high=difference.high)
    return TierFigures(metrics, {name: kept, f"top1.{kind}": top1}, {name: comparison})


def _loss(passage: Distributions) -> float:
    return -float(passage.actual.sum(dtype=float))


def _compare_passage(reference: Distributions, tier: Distributions) -> tuple[float, ...]:
    """Return tokens, loss of the tier, loss of the reference, divergence, and tokens on which both agree."""
    return (
        len(tier.actual),
        _loss(tier),
        _loss(reference),
        float(divergence(reference, tier).sum()),
        float(agreement(reference, tier).sum()),
    )


def _exp(exponent: Floats) -> Floats:
    """Return e to the exponent; a checkpoint that is sure of the wrong token is bad, not infinite."""
    result: Floats = np.exp(np.minimum(exponent, _MAX_NATS))
    return result
