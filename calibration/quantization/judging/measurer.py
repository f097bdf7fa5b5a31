"""Compare models with their reference, token by token, over all probabilities. Knows no quantizer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calibration.quantization.judging.heldout_groups import GROUP_TOKENS, TEXT_TOKENS, Heldout, HeldoutGroup
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.loading import load_tokenizer, quiet
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.texts.token_ids import token_ids

_HALF_BYTES = 2


class _Passage(NamedTuple):
    group: str
    ids: torch.Tensor  # one row


class ReferenceAnswers:
    """The reference's log probabilities, in a file without a name: a process that is killed leaves nothing."""

    def __init__(self, heldout: Heldout, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._passages = list(_passages(heldout.groups, tokenizer))
        self._file: IO[bytes] = TemporaryFile(dir=heldout.scratch)  # noqa: SIM115  (kept as long as this)
        sums = _Sums()
        for passage in self._passages:
            answers = _log_probabilities(model, passage)
            self._file.write(memoryview(answers.half().contiguous().view(torch.uint8).numpy()))
            sums.add(passage, answers, answers)
        self.figures = sums.figures()

    def compare(self, model: PreTrainedModel) -> dict[str, Figures]:
        sums = _Sums()
        self._file.seek(0)
        for passage in self._passages:
            answers = _log_probabilities(model, passage)
            stored = bytearray(self._file.read(answers.numel() * _HALF_BYTES))
            sums.add(passage, answers, torch.frombuffer(stored, dtype=torch.half).view_as(answers).float())
        return sums.figures()


class _Sums:
    def __init__(self) -> None:
        self._tokens: defaultdict[str, int] = defaultdict(int)
        self._loss: defaultdict[str, float] = defaultdict(float)
        self._divergence: defaultdict[str, float] = defaultdict(float)

    def add(self, passage: _Passage, answers: torch.Tensor, expected: torch.Tensor) -> None:
        following = passage.ids[0, 1:, None].to(answers.device)
        self._tokens[passage.group] += len(answers)
        self._loss[passage.group] -= float(answers.gather(1, following).sum())
        self._divergence[passage.group] += float((expected.exp() * (expected - answers)).sum())

    def figures(self) -> dict[str, Figures]:
        return {
            group: Figures(tokens, _exp(self._loss[group] / tokens), self._divergence[group] / tokens)
            for group, tokens in self._tokens.items()
        }


class Measurer:
    """Measures checkpoints; what the last reference answered is kept."""

    def __init__(self, load: Callable[[Path, OffloadLimit | None], AbstractContextManager[PreTrainedModel]]) -> None:
        self._load = load
        self._of: tuple[Path, tuple[HeldoutGroup, ...]] | None = None
        self._answers: ReferenceAnswers | None = None

    def measure(self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None) -> Mapping[str, Figures]:
        answers = self.ask_reference(heldout, memory)
        if checkpoint == heldout.reference:
            return answers.figures
        with quiet(), torch.inference_mode(), self._load(checkpoint, memory) as model:
            return answers.compare(model)

    def ask_reference(self, heldout: Heldout, memory: OffloadLimit | None) -> ReferenceAnswers:
        """Return what the reference answers; load it only if it is another than before."""
        key = (heldout.reference, heldout.groups)
        if self._answers is None or self._of != key:
            with quiet(), torch.inference_mode(), self._load(heldout.reference, memory) as model:
                self._answers = ReferenceAnswers(heldout, model, load_tokenizer(heldout.reference))
            self._of = key
        return self._answers


def _passages(groups: tuple[HeldoutGroup, ...], tokenizer: PreTrainedTokenizerBase) -> Iterator[_Passage]:
    """Yield the beginning of each text until a group has its tokens; one token alone predicts nothing."""
    for group in groups:
        left = GROUP_TOKENS
        for text in group.texts:
            ids = token_ids(text, tokenizer, min(TEXT_TOKENS, left))
            left -= len(ids)
            if len(ids) > 1:
                yield _Passage(group.name, torch.tensor([ids]))


def _log_probabilities(model: PreTrainedModel, passage: _Passage) -> torch.Tensor:
    return torch.log_softmax(model(passage.ids).logits[0, :-1].float(), dim=-1)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
