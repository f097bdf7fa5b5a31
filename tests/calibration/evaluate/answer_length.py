"""A measure that calibration does not have: how long the answer to one prompt is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import Asker
from calibration.evaluate.figures import TierFigures, make_estimate
from calibration.evaluate.heldout import HeldoutText
from calibration.evaluate.measures.measure import EvaluationOptions, Prepared
from calibration.terminal.progress import Advance


def prepare(options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
    return Prepared(measures=[AnswerLength()], sources={"one prompt": "0" * 64})


@dataclass(frozen=True, slots=True)
class AnswerLength:
    name: str = "length"

    @property
    def inputs(self) -> dict[str, Any]:
        return {}

    async def take(self, asker: Asker, advance: Advance) -> int:
        return len(await asker.complete("a", 1, []))

    def encode(self, result: int) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> int:
        return msgspec.json.decode(content, type=int)

    def figures(self, result: int, reference: int | None, candidate: Candidate) -> TierFigures:
        metrics = {"answer_chars": make_estimate(result, result, result, 1)}
        kept = {} if reference is None else {"answer_chars": make_estimate(1, 1, 1, 1)}
        return TierFigures(metrics, kept)
