"""What one tier loses on one prompt, from predictions of both. Pure.

`answer`: along the reference's own answer, as `calibrate evaluate` takes it. `text`: along the prompt's own tokens.
`own`: how sure the tier is of the answer that it writes itself, which is what a cascade can go by.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from calibration.evaluate.distributions import Distributions, agreement, divergence

_MIN = 1e-7
_RUN = 4
BEGINNINGS = (4, 8, 16, 32)  # tokens
# As the cascade has it (bitladder/routing/cascade.py): what is a billion times likelier is no surer than this.
_MAX_MARGIN = 20.0


class AnswerLabel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The loss along the reference's answer."""

    kl: float
    flips: float  # share of its tokens where another one is likeliest
    first_divergence: int  # tokens before the first flip; all of them where there is none
    tokens: int
    kl_halves: tuple[float, float] | None = None  # of the first and of the second half; None: there is one token
    kl_answers: tuple[float, ...] | None = None  # along each, where there are several
    flips_answers: tuple[float, ...] | None = None
    repeated: float | None = None  # share of the answer's runs of four tokens that came before; None: it has none


class TextLabel(msgspec.Struct, frozen=True, kw_only=True):
    """The loss along the prompt's own tokens."""

    kl: float
    flips: float
    tokens: int


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """How sure a tier was of the first tokens of its own answer, in means."""

    entropy: float
    margin: float


class OwnLabel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How sure a tier is of its own answer, in means of its tokens."""

    entropy: float  # nats, of the likeliest tokens and of all others as one: a lower bound
    margin: float  # nats between the likeliest token and the next
    margin_min: float
    tokens: int
    beginnings: dict[str, Beginning] = {}  # by the number of tokens: what is known while it is written


class TaskLabel(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a tier's own answer is wrong."""

    wrong: int
    rule: str


class TierLabel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of one tier; the reference has no loss against itself."""

    answer: AnswerLabel | None = None
    text: TextLabel | None = None
    own_answer: OwnLabel | None = msgspec.field(default=None, name="own")
    task: TaskLabel | None = None


def answer_label(reference: Distributions, tier: Distributions, repeated: float | None = None) -> AnswerLabel:
    kl, same = divergence(reference, tier), agreement(reference, tier)
    half = len(kl) // 2
    halves = (_round(kl[:half].mean()), _round(kl[half:].mean())) if half else None
    return AnswerLabel(
        kl=_round(kl.mean()),
        flips=_round(1 - same.mean()),
        first_divergence=len(same) if same.all() else int(same.argmin()),
        tokens=len(kl),
        kl_halves=halves,
        repeated=repeated,
    )


def joined(answers: Sequence[AnswerLabel]) -> AnswerLabel:
    """Return the loss along all answers of one prompt: means of their tokens, and the first one's divergence."""
    if len(answers) == 1:
        return answers[0]
    tokens = np.array([answer.tokens for answer in answers])

    def mean(values: Sequence[float | None]) -> float | None:
        known = [at for at, value in enumerate(values) if value is not None]
        return _round(np.average([values[at] for at in known], weights=tokens[known])) if known else None

    return AnswerLabel(
        kl=mean([answer.kl for answer in answers]) or 0.0,
        flips=mean([answer.flips for answer in answers]) or 0.0,
        first_divergence=answers[0].first_divergence,
        tokens=int(tokens.sum()),
        kl_answers=tuple(answer.kl for answer in answers),
        flips_answers=tuple(answer.flips for answer in answers),
        repeated=mean([answer.repeated for answer in answers]),
    )


def repeated_share(tokens: Sequence[int]) -> float | None:
    """Return the share of runs of four tokens that came before: an answer that loops has a high one."""
    runs = [tuple(tokens[at : at + _RUN]) for at in range(len(tokens) - _RUN + 1)]
    return _round(1 - len(set(runs)) / len(runs)) if runs else None


def text_label(reference: Distributions, tier: Distributions) -> TextLabel | None:
    """Return the loss along a prompt; None where it has one token."""
    if not len(reference.actual):
        return None
    kl, same = divergence(reference, tier), agreement(reference, tier)
    return TextLabel(kl=_round(kl.mean()), flips=_round(1 - same.mean()), tokens=len(kl))


def own_label(predictions: Distributions) -> OwnLabel | None:
    """Return how sure a model was of an answer; None where it has no token."""
    if not len(predictions.actual) or predictions.logprobs.shape[1] < 2:
        return None
    logprobs = predictions.logprobs.astype(float)
    likely = np.exp(logprobs)
    rest = np.maximum(1 - likely.sum(axis=1), _MIN)
    entropy = -(likely * logprobs).sum(axis=1) - rest * np.log(rest)
    margins = np.minimum(logprobs[:, 0] - logprobs[:, 1], _MAX_MARGIN)
    return OwnLabel(
        entropy=_round(entropy.mean()),
        margin=_round(margins.mean()),
        margin_min=_round(margins.min()),
        tokens=len(margins),
        beginnings={
            str(count): Beginning(entropy=_round(entropy[:count].mean()), margin=_round(margins[:count].mean()))
            for count in BEGINNINGS
            if count <= len(margins)
        },
    )


def split_rows(rows: Distributions, count: int) -> tuple[Distributions, Distributions]:
    """Return the predictions of a prompt, and those of the answer behind it, which has `count` tokens."""
    at = len(rows.actual) - count
    return (
        Distributions(rows.actual[:at], rows.ids[:at], rows.logprobs[:at]),
        Distributions(rows.actual[at:], rows.ids[at:], rows.logprobs[at:]),
    )


def _round(value: float) -> float:
    return round(float(value), 6)
